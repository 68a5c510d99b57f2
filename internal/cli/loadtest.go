package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/serve/loadtest"
)

// loadtestResult is the result of loadtest. Latencies are milliseconds.
type loadtestResult struct {
	Server      string            `json:"server"`                 // its address
	Loop        string            `json:"loop"`                   // closed (each client waits for its answer) or open (requests are due at their times)
	Rate        float64           `json:"rate,omitempty"`         // requests per second that were due, of an open loop
	Concurrency int               `json:"concurrency"`            // clients: requests under way at most
	Sessions    int               `json:"sessions"`               // sequences at a time; 0: requests were independent
	Seconds     float64           `json:"seconds"`                // from the first request to the last answer
	Requests    int               `json:"requests"`               // right answers
	PerSecond   float64           `json:"per_second"`             // right answers a second
	Latency     latencyJSON       `json:"latency"`                // of right answers; in an open loop from the moment a request was due
	Service     *latencyJSON      `json:"service,omitempty"`      // of an open loop: from sending a request to its answer
	Failed      int               `json:"failed"`                 // requests with an error
	Lost        int               `json:"lost"`                   // requests without an answer when the load ended; latency counts how long they had waited
	Errors      []loadtest.Errors `json:"errors"`                 // by kind
	Waited      int               `json:"waited,omitempty"`       // requests of an open loop that were due and waited for a client, or for the last answer of their session
	Late        *latencyJSON      `json:"late,omitempty"`         // of an open loop: how long after it was due a request was sent that had nothing to wait for, which is the generator's own delay, and part of latency
	LateSends   int               `json:"late_sends,omitempty"`   // of those, later than 1 ms
	CPU         float64           `json:"cpu_us,omitempty"`       // microseconds of processor time of this command for each request, of all cores; absent where the system does not say
	Batch       float64           `json:"batch,omitempty"`        // mean rows of an execution, by the server's statistics; absent without them
	Models      []loadtestModel   `json:"models"`                 // by model
	Histogram   []loadtest.Bucket `json:"histogram"`              // of latency
	Objective   float64           `json:"objective_ms,omitempty"` // with --slo: what p99 was to stay below
	Search      []loadtest.Trial  `json:"search,omitempty"`       // with --slo: the rates that were tried
}

// loadtestModel is a model's part of the load.
type loadtestModel struct {
	Model    string      `json:"model"`           // its name
	Requests int         `json:"requests"`        // right answers, and requests without an answer when the load ended
	Latency  latencyJSON `json:"latency"`         // of these
	Batch    float64     `json:"batch,omitempty"` // mean rows of an execution, by the server's statistics; absent without them
}

// latencyJSON are percentiles of latencies.
type latencyJSON struct {
	Mean float64 `json:"mean_ms"` // milliseconds
	P50  float64 `json:"p50_ms"`  // milliseconds that half of the requests did not exceed
	P90  float64 `json:"p90_ms"`  // of 90 %
	P99  float64 `json:"p99_ms"`  // of 99 %
	P999 float64 `json:"p999_ms"` // of 99.9 %
	Max  float64 `json:"max_ms"`  // the longest
}

func latencyOf(l *loadtest.Latency) latencyJSON {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return latencyJSON{ms(l.Mean()), ms(l.Quantile(0.5)), ms(l.Quantile(0.9)), ms(l.Quantile(0.99)), ms(l.Quantile(0.999)), ms(l.Max())}
}

// loadtestOptions are the flags of loadtest.
type loadtestOptions struct {
	server   loadtest.Options
	load     loadtest.Load
	tensors  string
	duration time.Duration
	warmup   time.Duration
	slo      time.Duration
	shapes   []string // [NAME=]SIZES
	data     []string // [NAME=]FILE
	inputs   int
	integers int
	page     string
}

func (a *app) loadtestCommand() *cobra.Command {
	var o loadtestOptions
	c := &cobra.Command{
		Use:   "loadtest URL --model NAME",
		Short: "Measure a server's requests per second and latencies",
		Long: `Measures a server of the Open Inference Protocol v2 (carousel serve, Triton, KServe,
MLServer): http://HOST:PORT and https:// over REST, grpc://HOST:PORT and grpcs:// over
gRPC. The server says which inputs the model has; their values are random, or come
from files.

Without --rate each of --concurrency clients sends its next request when the last is
answered (a closed loop): it finds what the server can do, but its latencies say little,
because a slow server is asked less. With --rate requests are due at random times with
that mean rate, whatever the server does (an open loop), and a latency counts from the
moment a request was due. If the server stalls for a second, all that were due meanwhile
waited, and count so.

With --slo the rate is searched: the highest whose 99th percentile is at most this time,
while no request fails.

With --sessions clients are streams: the requests of a session have one sequence_id,
which the server keeps a state for, and follow each other.

Inputs:
  --shape x=1,100,8    where the model's metadata leaves dimensions free; a first
                       free dimension, that of the batch, is 1 by default
  --data x=x.npy       an array of the input's shape, or with one more dimension in
                       front, of which requests take one part after the other
  --data x=x.json      the same as nested lists
  --data t=lines.txt   texts, one in a line, of which requests take as many as the
                       shape holds
With one input its name may be left out.`,
		Example: `  carousel loadtest http://127.0.0.1:8080 --model sales --concurrency 16
  carousel loadtest grpc://127.0.0.1:9000 --model lstm --sessions 100 --rate 2000 --duration 30s
  carousel loadtest http://127.0.0.1:8080 --model lstm --shape x=1,100,8 --slo 20ms
  carousel loadtest http://127.0.0.1:8080 --model a --model b --check --requests 5000 --json`,
		GroupID: groupWork,
		Args:    oneArg("the server's address, such as http://127.0.0.1:8080"),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("slo") && o.slo <= 0 {
				return wrongFlag("slo", "--slo %v: want a time above 0, such as 20ms", o.slo)
			}
			if !c.Flags().Changed("concurrency") && (o.load.Rate > 0 || o.slo > 0) {
				o.load.Clients = openClients
			}
			if !c.Flags().Changed("concurrency") && o.load.Rate == 0 && o.load.Sessions > 0 && o.slo == 0 {
				o.load.Clients = o.load.Sessions
			}
			if o.slo > 0 && !c.Flags().Changed("duration") {
				o.duration = 0 // the search's own
			}
			if o.load.Count > 0 && !c.Flags().Changed("duration") {
				o.duration = 0
			}
			return a.loadtest(c.Context(), args[0], &o)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.server.Models, "model", nil, "the model's `name`; repeated, requests are for the models in turn")
	f.StringVar(&o.server.Version, "model-version", "", "the models' `version` (default the server's choice)")
	f.IntVar(&o.load.Clients, "concurrency", 1, "`n` clients, each with one request at a time; if it is not given, with --sessions as many, with --rate or --slo at most 256, otherwise")
	f.Float64Var(&o.load.Rate, "rate", 0, "requests per second `r`, due whatever the server does; with --slo the first that is tried")
	f.BoolVar(&o.load.Uniform, "uniform", false, "with --rate: at equal distances, not at random times")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "how long requests are sent; with --slo each trial, which is 3s if it is not given")
	f.IntVar(&o.load.Count, "requests", 0, "send `n` requests, and as long as that takes unless --duration is given too")
	f.DurationVar(&o.warmup, "warmup", time.Second, "send requests for this time before, without counting them")
	f.DurationVar(&o.slo, "slo", 0, "search the highest rate whose p99 is at most this time, such as 20ms")
	f.IntVar(&o.load.Sessions, "sessions", 0, "`n` sequences at a time, whose state the server keeps")
	f.IntVar(&o.server.SessionLength, "session-length", 0, "with --sessions: `n` steps of a sequence, after which another begins (default no end)")
	f.StringArrayVar(&o.shapes, "shape", nil, "the shape of an input: `NAME=SIZES`, such as x=1,100,8; may be repeated")
	f.StringArrayVar(&o.data, "data", nil, "values of an input from a file: `NAME=FILE`, .npy, .json or lines of text; may be repeated")
	f.StringArrayVar(&o.server.Omit, "omit", nil, "leave out the input of this `name`, such as a state that the server keeps; may be repeated")
	f.IntVar(&o.inputs, "inputs", 16, "`n` different random inputs, in turn")
	f.IntVar(&o.integers, "integers", 2, "random integers are below `n`")
	f.StringVar(&o.tensors, "tensors", "binary", "over REST: tensors as binary or as json")
	f.BoolVar(&o.server.Stream, "stream", false, "over gRPC: each client keeps one ModelStreamInfer open")
	f.StringArrayVar(&o.server.Headers, "header", nil, "a header of all requests: `\"NAME: VALUE\"`; may be repeated")
	f.DurationVar(&o.server.Timeout, "timeout", loadtest.DefaultTimeout, "of a request")
	f.BoolVar(&o.server.Check, "check", false, "compare each answer with the first to an equal input, or an equal beginning of a session: the bits must agree")
	f.StringVar(&o.page, "page", "", "write the result as a page to this `file`")
	return c
}

// openClients are the clients of an open loop, which must not wait for one.
const openClients = 256

func (o *loadtestOptions) check() error {
	l := &o.load
	switch {
	case len(o.server.Models) == 0:
		return wrongFlag("model", "--model is missing: name the model that requests are for; the server lists them at /v2/repository/index")
	case l.Clients < 1 || l.Clients > 20000:
		return wrongFlag("concurrency", "--concurrency %d: want 1 to 20000 clients", l.Clients)
	case !(l.Rate >= 0 && l.Rate <= 1e6):
		return wrongFlag("rate", "--rate %g: want requests per second, up to 1000000", l.Rate)
	case o.duration < 0 || o.duration > 7*24*time.Hour:
		return wrongFlag("duration", "--duration %v: want a time up to 168h", o.duration)
	case o.warmup < 0 || o.warmup > time.Hour:
		return wrongFlag("warmup", "--warmup %v: want a time up to 1h, or 0", o.warmup)
	case l.Count < 0 || l.Count > 0 && o.slo > 0:
		return wrongFlag("requests", "--requests %d: want a number above 0, and not with --slo, whose trials last --duration", l.Count)
	case l.Count == 0 && o.duration == 0 && o.slo == 0:
		return wrongFlag("duration", "--duration 0: want a time, or --requests")
	case l.Sessions < 0 || l.Sessions > 1_000_000:
		return wrongFlag("sessions", "--sessions %d: want up to 1000000", l.Sessions)
	case o.server.SessionLength < 0 || o.server.SessionLength > 0 && l.Sessions == 0:
		return wrongFlag("session-length", "--session-length %d: want a number of steps, with --sessions", o.server.SessionLength)
	case l.Sessions > 0 && l.Sessions < len(o.server.Models):
		return wrongFlag("sessions", "--sessions %d: want at least one for each of the %d models", l.Sessions, len(o.server.Models))
	case l.Uniform && l.Rate == 0 && o.slo == 0:
		return wrongFlag("uniform", "--uniform is about the times of --rate; give a rate")
	case o.inputs < 1 || o.inputs > 10000:
		return wrongFlag("inputs", "--inputs %d: want 1 to 10000", o.inputs)
	case o.integers < 1:
		return wrongFlag("integers", "--integers %d: want a number above 0", o.integers)
	case o.tensors != "binary" && o.tensors != "json":
		return wrongFlag("tensors", "--tensors %q: want binary or json", o.tensors)
	case o.server.Timeout <= 0:
		return wrongFlag("timeout", "--timeout %v: want a time, such as 30s", o.server.Timeout)
	}
	return nil
}

func (a *app) loadtest(ctx context.Context, address string, o *loadtestOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	// On one core nobody wakes threads for the next request, which would cost more than to
	// send it, and would be taken from a server on this machine.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(a.threads, 1)))
	ctx, stop := a.catchInterrupt(ctx)
	defer stop()
	o.load.Seed, o.load.Kinds, o.load.Seconds = a.seed, len(o.server.Models), o.duration.Seconds()
	o.server.JSON, o.server.Clients, o.server.Sessions = o.tensors == "json", o.load.Clients, o.load.Sessions
	s, err := loadtest.Connect(ctx, address, o.server)
	var failed *loadtest.Failure
	switch {
	case err != nil && !errors.As(err, &failed) && ctx.Err() == nil: // no server was asked
		return misusef("%v", err)
	case err != nil:
		return err
	}
	defer s.Close()
	if err := a.prepareLoad(s, o); err != nil {
		return err
	}
	if err := s.Try(ctx); err != nil {
		return err
	}
	for _, name := range s.Unlisted() {
		a.note("--omit %s: the server lists no input of this name, so nothing is left out", name)
	}
	if o.warmup > 0 {
		warm := o.load
		warm.Seconds, warm.Count = o.warmup.Seconds(), 0
		if o.slo > 0 && warm.Rate == 0 {
			warm.Clients = min(2, warm.Clients) // a closed loop, which overloads nothing
		}
		if _, err := loadtest.Run(ctx, s, warm); err != nil {
			return err
		}
	}
	before, counted, err := s.Statistics(ctx)
	if err != nil {
		return fmt.Errorf("%s: statistics: %w", address, err)
	}
	r := &loadtestResult{Server: address, Loop: "closed", Rate: o.load.Rate, Concurrency: o.load.Clients, Sessions: o.load.Sessions, Objective: float64(o.slo) / float64(time.Millisecond)}
	var got *loadtest.Report
	if o.slo > 0 {
		got, r.Search, err = loadtest.Search(ctx, s, o.load, o.slo, func(t loadtest.Trial) {
			a.note("%s requests/s: p99 %s ms%s", report.Number(t.Rate), report.Number(t.P99), verdictOf(t))
		})
		if err == nil && got == nil {
			err = noRate(address, o.slo, r.Search)
		}
		if got != nil {
			r.Rate = r.Search[len(r.Search)-1].Rate
		}
	} else {
		got, err = loadtest.Run(ctx, s, o.load)
	}
	if err != nil {
		return err
	}
	if r.Rate > 0 {
		r.Loop = "open"
	}
	var after []loadtest.Statistics
	if counted {
		if after, _, err = s.Statistics(ctx); err != nil {
			return fmt.Errorf("%s: statistics: %w", address, err)
		}
	}
	s.End(ctx)
	r.fill(got, s.Models(), before, after)
	if r.Requests == 0 && len(r.Errors) > 0 {
		return fmt.Errorf("%s: all %d requests failed: %s: %s", address, r.Failed, r.Errors[0].Kind, r.Errors[0].First)
	}
	if o.page != "" {
		if err := a.writePage(o.page, r.page()); err != nil {
			return err
		}
	}
	if err := a.emit("loadtest", r, r.print); err != nil {
		return err
	}
	if i := slices.IndexFunc(r.Errors, func(e loadtest.Errors) bool { return e.Kind == "differs" }); i >= 0 {
		return fmt.Errorf("%d answers differ: %s", r.Errors[i].Count, r.Errors[i].First)
	}
	return nil
}

func verdictOf(t loadtest.Trial) string {
	text := ", met"
	if !t.Met {
		text = ", missed"
	}
	if t.Failed > 0 {
		text += fmt.Sprintf(", %d failed", t.Failed)
	}
	if t.Late {
		text += ", the generator itself was late"
	}
	return text
}

// noRate says that no rate met the objective.
func noRate(address string, slo time.Duration, trials []loadtest.Trial) error {
	last := trials[len(trials)-1]
	return fmt.Errorf("%s: no rate has a p99 of at most %v: at %s requests/s it was %s ms, and %d requests failed; want a longer time in --slo, or a lower --rate to begin with",
		address, slo, report.Number(last.Rate), report.Number(last.P99), last.Failed)
}

// fill takes over what was measured.
func (r *loadtestResult) fill(got *loadtest.Report, models []*loadtest.Model, before, after []loadtest.Statistics) {
	r.Seconds, r.Requests, r.PerSecond = got.Elapsed.Seconds(), got.Answered(), got.PerSecond()
	r.Latency, r.Failed, r.Lost, r.Errors = latencyOf(got.Total), got.Failed(), got.Lost, got.Errors
	if all := got.Answered() + got.Failed() + got.Lost; all > 0 {
		r.CPU = float64(got.CPU.Microseconds()) / float64(all)
	}
	if r.Loop == "open" {
		service, late := latencyOf(got.Service), latencyOf(got.Late)
		r.Service, r.Late, r.LateSends, r.Waited = &service, &late, got.Late.Above(time.Millisecond), got.Queued
	}
	batch := func(rows, executions uint64) float64 {
		if executions == 0 {
			return 0
		}
		return float64(rows) / float64(executions)
	}
	var rows, executions uint64
	for i, m := range models {
		one := loadtestModel{Model: m.Name, Requests: got.Kinds[i].Count(), Latency: latencyOf(got.Kinds[i])}
		if after != nil {
			n, e := after[i].Rows-before[i].Rows, after[i].Executions-before[i].Executions
			one.Batch, rows, executions = batch(n, e), rows+n, executions+e
		}
		r.Models = append(r.Models, one)
	}
	r.Batch = batch(rows, executions)
	r.Histogram = got.Total.Buckets()
}

// prepareLoad gives the models' inputs values.
func (a *app) prepareLoad(s *loadtest.Server, o *loadtestOptions) error {
	var names []string
	for _, m := range s.Models() {
		for _, in := range m.Inputs {
			if !slices.Contains(names, in.Name) {
				names = append(names, in.Name)
			}
		}
	}
	shapes, err := byInput("shape", o.shapes, names)
	if err != nil {
		return err
	}
	files, err := byInput("data", o.data, names)
	if err != nil {
		return err
	}
	for _, m := range s.Models() {
		var values [][]inference.Value
		for _, in := range m.Inputs {
			var dims []int
			if text, ok := shapes[in.Name]; ok {
				if dims, err = parseDims(text); err != nil {
					return wrongFlag("shape", "--shape %s=%s: %v", in.Name, text, err)
				}
			}
			var list []inference.Value
			if file, ok := files[in.Name]; ok {
				list, err = a.loadValues(&in, dims, file)
			} else if dims, err = loadtest.Shape(&in, dims); err != nil {
				err = wrongFlag("shape", "model %q: %v, as in --shape %s=1,100,8", m.Name, err, in.Name)
			} else if in.Datatype == inference.BYTES {
				err = wrongFlag("data", "model %q: input %s is text; give some, one in a line: --data %s=FILE", m.Name, in.Name, in.Name)
			} else if list, err = loadtest.Random(&in, dims, o.inputs, o.integers, a.seed); err != nil {
				err = wrongFlag("shape", "model %q: %v", m.Name, err)
			}
			if err != nil {
				return err
			}
			values = append(values, list)
		}
		if err := s.Prepare(m, values); err != nil {
			return err
		}
	}
	return nil
}

// byInput divides values NAME=VALUE of a flag by the names of inputs; of a single input
// the name may be absent.
func byInput(flag string, values, names []string) (map[string]string, error) {
	all := map[string]string{}
	for _, v := range values {
		name, rest, ok := strings.Cut(v, "=")
		if !ok && len(names) == 1 {
			name, rest = names[0], v
		}
		if _, twice := all[name]; twice {
			return nil, wrongFlag(flag, "--%s: input %s is given twice", flag, name)
		}
		if !slices.Contains(names, name) {
			return nil, wrongFlag(flag, "--%s %s: there is no input %q%s", flag, v, name, settings.DidYouMean(name, names, "", "the inputs are "))
		}
		all[name] = rest
	}
	return all, nil
}

// graphTypes are the names of datatypes that files of arrays are read as.
var graphTypes = map[inference.Datatype]string{
	inference.BOOL: "bool", inference.FP16: "float32", inference.BF16: "float32", inference.FP32: "float32", inference.FP64: "float32",
	inference.INT8: "int8", inference.INT16: "int16", inference.INT32: "int32", inference.INT64: "int64",
	inference.UINT8: "uint8", inference.UINT16: "uint16", inference.UINT32: "uint32", inference.UINT64: "uint64",
}

// loadValues reads the values of an input from a file.
func (a *app) loadValues(in *inference.Info, dims []int, file string) ([]inference.Value, error) {
	if in.Datatype == inference.BYTES {
		return loadLines(in, dims, file)
	}
	source, err := sourceOf(file)
	if err != nil || source.zeros || source.inline {
		return nil, wrongFlag("data", "--data %s=%s: want a file (.npy, .npz, .json)", in.Name, file)
	}
	r := &arrayReader{info: graph.ValueInfo{Name: in.Name, Type: graphTypes[in.Datatype], Any: true}, remark: a.remark}
	v, err := r.read(source)
	if err != nil {
		return nil, err
	}
	n, shape := 1, v.Dims
	if len(shape) == len(in.Dims)+1 {
		n, shape = shape[0], shape[1:]
	}
	if dims == nil {
		dims = shape
	}
	if _, err := loadtest.Shape(in, shape); err != nil || !slices.Equal(dims, shape) || n == 0 {
		want := in.Dims
		if !slices.Equal(dims, shape) {
			want = dims
		}
		return nil, &data.InputError{File: source.path, Problem: fmt.Sprintf("holds an array %s, and input %s wants %s, or one more dimension in front", npy.Shape(v.Dims), in.Name, npy.Shape(want))}
	}
	var list []inference.Value
	size := max(len(v.Data), len(v.Ints)) / n
	for i := range n {
		one := inference.Value{Dims: shape}
		switch in.Datatype.Kind() {
		case inference.Floats:
			one.Floats = v.Data[i*size : (i+1)*size]
		case inference.Doubles:
			for _, x := range v.Data[i*size : (i+1)*size] {
				one.Doubles = append(one.Doubles, float64(x))
			}
		default:
			one.Ints = v.Ints[i*size : (i+1)*size]
		}
		list = append(list, one)
	}
	return list, nil
}

// loadLines reads texts.
func loadLines(in *inference.Info, dims []int, file string) ([]inference.Value, error) {
	if dims == nil {
		for _, d := range in.Dims { // one text, unless the model wants more
			dims = append(dims, max(d, 1))
		}
	}
	if _, err := loadtest.Shape(in, dims); err != nil {
		return nil, wrongFlag("shape", "--shape: %v", err)
	}
	n := 1
	for _, d := range dims {
		n *= d
	}
	if n < 1 || n > 1<<20 {
		return nil, wrongFlag("shape", "--shape %s=%s: want 1 to %d texts in a request", in.Name, npy.Shape(dims), 1<<20)
	}
	r, err := data.OpenLines(file, data.EncodingAuto)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var lines []string
	for {
		text, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		lines = append(lines, text)
	}
	if lines == nil {
		return nil, &data.InputError{File: file, Problem: "is empty; want texts, one in a line"}
	}
	var list []inference.Value
	for i := 0; i == 0 || i+n <= len(lines); i += n {
		one := inference.Value{Dims: dims}
		for k := range n {
			one.Texts = append(one.Texts, lines[(i+k)%len(lines)])
		}
		list = append(list, one)
	}
	return list, nil
}

// print writes the result for people.
func (r *loadtestResult) print(w io.Writer) {
	for i, line := range r.summary() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		line.Print(w)
	}
	fmt.Fprintln(w)
	r.drawHistogram(w)
	for _, e := range r.Errors {
		fmt.Fprintf(w, "%s: %s; the first: %s\n", e.Kind, report.Plural(e.Count, "request"), e.First)
	}
	for _, text := range r.remarks() {
		fmt.Fprintf(w, "Note: %s\n", text)
	}
}

// summary are the tables of the result.
func (r *loadtestResult) summary() []*report.Table {
	load := report.NewTable("loop", "due/s", "clients", "sessions", "seconds", "answers", "answers/s", "failed", "lost", "mean batch")
	due, batch := "-", "-"
	if r.Loop == "open" {
		due = report.Number(r.Rate)
	}
	if r.Batch > 0 {
		batch = report.Number(r.Batch)
	}
	load.Add(r.Loop, due, report.Count(r.Concurrency), report.Count(r.Sessions), report.Number(r.Seconds), report.Count(r.Requests), report.Number(r.PerSecond), report.Count(r.Failed), report.Count(r.Lost), batch)
	times := report.NewTable("milliseconds", "mean", "p50", "p90", "p99", "p99.9", "max")
	row := func(name string, l latencyJSON) {
		times.Add(name, report.Number(l.Mean), report.Number(l.P50), report.Number(l.P90), report.Number(l.P99), report.Number(l.P999), report.Number(l.Max))
	}
	row("latency", r.Latency)
	if len(r.Models) > 1 {
		for _, m := range r.Models {
			row("  "+m.Model, m.Latency)
		}
	}
	if r.Loop == "open" {
		row("from sending", *r.Service)
		row("sent late by", *r.Late)
	}
	return []*report.Table{load, times}
}

// remarks say what makes a result doubtful.
func (r *loadtestResult) remarks() []string {
	var list []string
	if all := r.Requests + r.Lost; r.Loop == "open" && r.Late.P50 > 0 && r.LateSends*100 > all {
		list = append(list, fmt.Sprintf("%s of %s requests were sent more than 1 ms late by this generator, which counts as latency; another machine, or a lower rate, tells more of the server.", report.Count(r.LateSends), report.Count(all)))
	}
	if r.Loop == "open" && r.Concurrency < openClients && r.Waited > r.Requests/100 && r.Sessions == 0 {
		list = append(list, fmt.Sprintf("%s waited for one of the %d clients; a higher --concurrency would let more be under way.", report.Plural(r.Waited, "request"), r.Concurrency))
	}
	if r.Requests < 1000 {
		list = append(list, fmt.Sprintf("p99.9 of %s is the longest of them; a longer --duration says more.", report.Plural(r.Requests, "answer")))
	}
	return list
}

// barWidth are the characters of the longest bar.
const barWidth = 50

// drawHistogram draws the latencies. A bar has a character at least if there is one of its.
func (r *loadtestResult) drawHistogram(w io.Writer) {
	most := 0
	for _, b := range r.Histogram {
		most = max(most, b.Count)
	}
	for _, b := range r.Histogram {
		n := 0
		if b.Count > 0 {
			n = max(1, b.Count*barWidth/most)
		}
		fmt.Fprintf(w, "%9s ms %-*s %s\n", report.Number(b.From), barWidth, strings.Repeat("█", n), report.Count(b.Count))
	}
}

// page is the result as a page.
func (r *loadtestResult) page() *report.Page {
	p := &report.Page{Title: "Load test", Subtitle: r.Server + ": " + report.Listing(namesOfModels(r.Models)), Version: carousel.Version()}
	var blocks []report.Block
	for _, t := range r.summary() {
		blocks = append(blocks, t)
	}
	for _, e := range r.Errors {
		blocks = append(blocks, report.Text(fmt.Sprintf("%s: %s; the first: %s", e.Kind, report.Plural(e.Count, "request"), e.First)))
	}
	for _, text := range r.remarks() {
		blocks = append(blocks, report.Text(text))
	}
	p.Add("Result", blocks...)
	bars := &report.Bars{X: report.Axis{Label: "latency from, ms"}, Y: report.Axis{Label: "requests"}, Series: []report.Series{{Name: "requests"}}}
	for _, b := range r.Histogram {
		bars.Categories = append(bars.Categories, report.Number(b.From))
		bars.Series[0].Y = append(bars.Series[0].Y, float64(b.Count))
	}
	p.Add("Latency", &report.Figure{File: "latency.png", Title: "Latencies", Plot: bars})
	if len(r.Search) > 0 {
		t := report.NewTable("requests/s", "p99 ms", "failed", "objective")
		for _, one := range r.Search {
			t.Add(report.Number(one.Rate), report.Number(one.P99), report.Count(one.Failed), strings.TrimPrefix(verdictOf(one), ", "))
		}
		p.Add("Search", t)
	}
	return p
}

func namesOfModels(list []loadtestModel) []string {
	var names []string
	for _, m := range list {
		names = append(names, m.Model)
	}
	return names
}
