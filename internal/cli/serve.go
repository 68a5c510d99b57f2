package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/serve"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
)

// serveOptions are the flags of serve, as they are written.
type serveOptions struct {
	config, http, grpc, drain, log          string
	tokens, newToken, expiry                string
	certificate, key, clients, watch, store string
	otlp                                    string
	hosts                                   []string
	ratio                                   float64
	logRequests, profiles                   bool

	latency, life, body, timeout string
	rows, queue, sessions        int
}

func (a *app) serveCommand() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve MODEL[=NAME]...",
		Short: "Answer requests for models over HTTP and gRPC",
		Long: `Serves models: directories of trained models, of imported weights and of networks, and
ONNX files, each under its own name or the one behind "=". A directory whose
subdirectories are numbers holds versions, of which the newest is served.

Clients of the Open Inference Protocol v2 (KServe, Triton) are answered on both
addresses. A stream's state stays in the server between its requests (docs/sessions.md),
requests that wait are computed together, and /metrics is for Prometheus. docs/serve.md
describes all of it, and the keys of --config, which flags override.

It listens on this machine alone unless --http and --grpc say otherwise, and is open to
all who reach it unless --tokens names a file of tokens; --tls-certificate and --tls-key
encrypt both addresses (docs/operations.md). SIGTERM and Ctrl-C let it answer what it has
accepted, and end it with exit code 0; a second one ends it at once. SIGHUP lets it read
its files again.`,
		Example: `  carousel serve run
  carousel serve run=demand vad.onnx --latency 20ms
  carousel serve --config serve.yaml --http 0.0.0.0:8080 --grpc off
  carousel serve --new-token sensors=infer >> tokens      # the token itself is printed on stderr
  carousel serve run --tokens tokens`,
		GroupID: groupWork,
	}
	f := c.Flags()
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "`address` for HTTP: host:port, :port for all interfaces, or off; port 0 takes a free one")
	f.StringVar(&o.grpc, "grpc", "127.0.0.1:9000", "`address` for gRPC, likewise")
	f.StringSliceVar(&o.hosts, "hosts", nil, "`names`, divided by commas, of hosts that requests may be for beside addresses and localhost, or * for any; without --tokens no other is answered")
	a.computes.bind(f)
	f.StringVar(&o.config, "config", "", "YAML `file` with models, pipelines and limits, which is read again when it changes, and on SIGHUP")
	f.IntVar(&o.rows, "rows", 0, "largest number `n` of rows that are computed together (default 256)")
	f.StringVar(&o.latency, "latency", "", "`time` from a request to its answer that batches are kept small enough for (default 50ms)")
	f.IntVar(&o.queue, "queue", 0, "number `n` of requests that may wait for a model; further ones are refused (default 4096)")
	f.StringVar(&o.timeout, "timeout", "", "`time` of a request that gives none (default: none)")
	f.StringVar(&o.body, "body", "", "largest `size` of a request (default 64MiB)")
	f.IntVar(&o.sessions, "sessions", 0, "largest number `n` of sessions (default 100000)")
	f.StringVar(&o.life, "session-ttl", "", "`time` that a session may be idle (default 1m)")
	f.StringVar(&o.drain, "drain", "", "`time` for answers after the server was asked to stop (default 10s)")
	f.StringVar(&o.tokens, "tokens", "", "`file` of the tokens that clients must send; none: everyone is served")
	f.StringVar(&o.newToken, "new-token", "", "make a token for `NAME=SCOPES` (infer, admin, metrics, divided by commas): its line for the file is printed, and on stderr the token itself, once")
	f.StringVar(&o.expiry, "expiry", "", "last `day` of the new token, such as 2027-01-31 (default: none)")
	f.StringVar(&o.certificate, "tls-certificate", "", "`file` of the server's certificate in PEM")
	f.StringVar(&o.key, "tls-key", "", "`file` of its key in PEM")
	f.StringVar(&o.clients, "tls-clients", "", "`file` of the authorities, in PEM, of which clients must have a certificate")
	f.StringVar(&o.watch, "watch", "", "`time` between looks at the files of the configuration, models, tokens and certificates, which are read again when they change, or off (default 5s)")
	f.StringVar(&o.store, "store", "", "`directory` in which sessions are kept over a restart (default: none)")
	f.StringVar(&o.otlp, "otlp", "", "`URL` of a receiver of traces, of OTLP over HTTP, such as http://127.0.0.1:4318 (default: none)")
	f.Float64Var(&o.ratio, "trace-ratio", 1, "part `r` of the traces that begin here which is sent to --otlp, above 0; other traces as those who began them say")
	f.BoolVar(&o.logRequests, "log-requests", false, "log requests that succeed, too")
	f.BoolVar(&o.profiles, "profiles", false, "serve profiles of the process at /debug/pprof/")
	f.StringVar(&o.log, "log", "warn", "least `level` of what is logged on stderr: error, warn, info or debug; never what requests contain")
	c.RunE = func(c *cobra.Command, args []string) error {
		if c.Flags().Changed("new-token") {
			return a.newToken(c, &o, args)
		}
		config, err := o.resolve(c, args)
		if err != nil {
			return err
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(o.log)); err != nil {
			return wrongFlag("log", "--log: want error, warn, info or debug, got %q", o.log)
		}
		var read func() (*serve.Config, error)
		if o.config != "" {
			read = func() (*serve.Config, error) { return o.resolve(c, args) }
		}
		return a.serve(c.Context(), config, read, level)
	}
	return c
}

// resolve returns the configuration: defaults, the file's, the flags'.
func (o *serveOptions) resolve(c *cobra.Command, args []string) (*serve.Config, error) {
	config := &serve.Config{}
	if o.config != "" {
		var err error
		if config, err = serve.ReadConfig(o.config, checkDevice); err != nil {
			return nil, err
		}
	}
	for _, arg := range args {
		one := serve.ModelConfig{Path: arg}
		if at := strings.LastIndexByte(arg, '='); at > 0 && !isThere(arg) {
			one.Path, one.Name = arg[:at], arg[at+1:]
			if one.Name == "" {
				return nil, misusef("%s: want MODEL or MODEL=NAME, got no name behind =", arg)
			}
		}
		config.Models = append(config.Models, one)
	}
	if len(config.Models) == 0 {
		return nil, misusef("serve needs a model: a directory or an ONNX file, such as carousel serve run, or --config with models; see %s --help", c.CommandPath())
	}
	changed := c.Flags().Changed
	for _, door := range []struct {
		flag, value string
		to          *string
	}{{"http", o.http, &config.HTTP}, {"grpc", o.grpc, &config.GRPC}} {
		if changed(door.flag) || *door.to == "" {
			*door.to = cmp.Or(door.value, serve.Off)
		}
		if err := serve.CheckAddress(*door.to); err != nil {
			return nil, wrongFlag(door.flag, "--%s: %v", door.flag, err)
		}
	}
	if config.HTTP == serve.Off && config.GRPC == serve.Off {
		return nil, wrongFlag("http", "--http and --grpc are off; want an address for one of them")
	}
	if changed("hosts") {
		config.Hosts = o.hosts
	}
	for _, name := range config.Hosts {
		if err := serve.CheckHost(name); err != nil {
			return nil, wrongFlag("hosts", "--hosts: %v", err)
		}
	}
	if changed("device") {
		config.Device = c.Flags().Lookup("device").Value.String()
	}
	if changed("otlp") {
		config.Traces = o.otlp
		if err := serve.CheckReceiver(o.otlp); o.otlp != "" && err != nil {
			return nil, wrongFlag("otlp", "--otlp: %v", err)
		}
	}
	if changed("trace-ratio") || config.TraceRatio == 0 {
		if config.TraceRatio = o.ratio; !serve.CheckRatio(o.ratio) {
			return nil, wrongFlag("trace-ratio", "--trace-ratio: want a number above 0, at most 1, got %g", o.ratio)
		}
	}
	config.Drain = cmp.Or(config.Drain, 10*time.Second)
	var rows, queue int
	var latency time.Duration
	for _, number := range []struct {
		flag  string
		value int
		to    *int
	}{{"rows", o.rows, &rows}, {"queue", o.queue, &queue}, {"sessions", o.sessions, &config.Limits.Sessions.Most}} {
		if changed(number.flag) {
			if *number.to = number.value; number.value < 1 {
				return nil, wrongFlag(number.flag, "--%s: want a whole number from 1, got %d", number.flag, number.value)
			}
		}
	}
	for _, one := range []struct {
		flag, value string
		to          *time.Duration
	}{{"latency", o.latency, &latency}, {"timeout", o.timeout, &config.Limits.Timeout}, {"session-ttl", o.life, &config.Limits.Sessions.Life}, {"drain", o.drain, &config.Drain}} {
		if changed(one.flag) {
			var err error
			if *one.to, err = time.ParseDuration(one.value); err != nil || *one.to <= 0 {
				return nil, wrongFlag(one.flag, "--%s: want a time such as 20ms, 10s or 5m, got %q", one.flag, one.value)
			}
		}
	}
	if changed("body") {
		var err error
		if config.Limits.Body, err = serve.ParseSize(o.body); err != nil {
			return nil, wrongFlag("body", "--body: %v", err)
		}
	}
	for _, file := range []struct{ value, to *string }{{&o.tokens, &config.Tokens}, {&o.certificate, &config.Certificate}, {&o.key, &config.Key}, {&o.clients, &config.Clients}, {&o.store, &config.Store}} {
		*file.to = cmp.Or(*file.value, *file.to)
	}
	if (config.Certificate == "") != (config.Key == "") || config.Clients != "" && config.Key == "" {
		return nil, wrongFlag("tls-certificate", "TLS needs a certificate and its key: give both --tls-certificate and --tls-key")
	}
	if changed("watch") {
		var ok bool
		if config.Watch, ok = serve.ParseInterval(o.watch); !ok {
			return nil, wrongFlag("watch", "--watch: want a time such as 5s, or off, got %q", o.watch)
		}
	}
	config.Watch = cmp.Or(config.Watch, 5*time.Second)
	config.LogRequests, config.Profiles = config.LogRequests || o.logRequests, config.Profiles || o.profiles
	for i := range config.Models {
		q := &config.Models[i].Queue
		q.Rows, q.Jobs, q.Latency = cmp.Or(rows, q.Rows), cmp.Or(queue, q.Jobs), cmp.Or(latency, q.Latency)
	}
	return config, nil
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// serve opens the models and answers until it is asked to stop. read returns the configuration
// of a file, with the flags, as it is then; nil if it is of flags alone.
func (a *app) serve(ctx context.Context, config *serve.Config, read func() (*serve.Config, error), level slog.Level) error {
	news := make(chan os.Signal, 1)
	a.hearsNews.Store(true)
	defer a.hearsNews.Store(false)
	signal.Notify(news, syscall.SIGHUP)
	defer signal.Stop(news)
	ctx, end := a.catchInterrupt(ctx)
	defer end()
	on, err := a.openDevice(config.Device)
	if err != nil {
		return err
	}
	web, err := openListener("http", config.HTTP)
	if err != nil {
		return err
	}
	grpc, err := openListener("grpc", config.GRPC)
	if err != nil {
		if web != nil {
			web.Close()
		}
		return err
	}
	var shown slog.LevelVar
	shown.Set(slog.LevelError + 1) // what becomes of the models at the start is told below
	log := slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: &shown}))
	o := serve.Options{Tasks: a.kinds, Version: carousel.Version(), Device: on, Limits: config.Limits, Log: log, LogRequests: config.LogRequests, Profiles: config.Profiles}
	if config.LogRequests {
		level = min(level, slog.LevelInfo)
	}
	var flush func()
	if flush, err = equip(&o, config); err == nil {
		defer flush()
		s := serve.New(o)
		if err = a.prepare(ctx, s, &o, config, web, grpc, func() { shown.Set(level) }); err == nil && ctx.Err() == nil {
			return a.answer(ctx, s, &o, config, read, news, web, grpc)
		}
		err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	for _, l := range []net.Listener{web, grpc} {
		if l != nil {
			l.Close()
		}
	}
	return err
}

// equip opens what the server needs of its configuration beside models: files of tokens and
// certificates, and the exporter of traces, whose last ones flush sends.
func equip(o *serve.Options, config *serve.Config) (flush func(), err error) {
	if config.Tokens != "" {
		if o.Access, err = serve.OpenAccess(config.Tokens, o.Log); err != nil {
			return nil, err
		}
	}
	if config.Certificate != "" {
		if o.TLS, err = serve.OpenCertificates(config.Certificate, config.Key, config.Clients, o.Log); err != nil {
			return nil, err
		}
	}
	if o.Hosts = slices.Clone(config.Hosts); o.Access == nil || o.Hosts != nil {
		for _, address := range []string{config.HTTP, config.GRPC} {
			if name, _, err := net.SplitHostPort(address); err == nil && name != "" { // that it is listened on by
				o.Hosts = append(o.Hosts, name)
			}
		}
	}
	if config.Traces == "" {
		return func() {}, nil
	}
	o.Traces, flush, err = openTraces(config.Traces, config.TraceRatio, o.Log)
	return flush, err
}

// prepare opens the models and the store of sessions, and says what is served. The log begins
// with the store.
func (a *app) prepare(ctx context.Context, s *serve.Server, o *serve.Options, config *serve.Config, web, grpc net.Listener, begin func()) error {
	opened, err := a.openModels(ctx, s, config)
	if err != nil || ctx.Err() != nil {
		return err
	}
	begin()
	if config.Store != "" {
		restored, lost, err := s.OpenStore(ctx, config.Store)
		if err != nil {
			return err
		}
		setAside := ""
		if lost > 0 {
			setAside = "; their files there end with .bad now"
		}
		if restored+lost > 0 {
			a.note("Sessions of %s: %d go on, %d cannot%s", config.Store, restored, lost, setAside)
		}
	}
	return a.tellServed(s, o, config, web, grpc, opened)
}

// answer answers until ctx ends, and reads files that change meanwhile, or when there is news.
func (a *app) answer(ctx context.Context, s *serve.Server, o *serve.Options, config *serve.Config, read func() (*serve.Config, error), news <-chan os.Signal, web, grpc net.Listener) error {
	refuseLargeRequests()
	watched, stop := context.WithCancel(ctx)
	defer stop() // they are not waited for: a model that is being opened must not hold up the end
	now := make(chan os.Signal, 1)
	if read != nil {
		go s.FollowConfig(watched, config, config.Watch, now, read)
	}
	go func() {
		for {
			select {
			case <-watched.Done():
				return
			case one := <-news:
				if o.Access != nil {
					o.Access.Reload()
				}
				if o.TLS != nil {
					o.TLS.Reload()
				}
				select {
				case now <- one:
				default: // nobody follows a file, or it is about to be read
				}
				s.Reload(watched)
			}
		}
	}()
	if config.Watch > 0 {
		go s.Watch(watched, config.Watch)
		if o.Access != nil {
			go o.Access.Watch(watched, config.Watch)
		}
		if o.TLS != nil {
			go o.TLS.Watch(watched, config.Watch)
		}
	}
	err := s.Run(ctx, web, grpc, config.Drain)
	if lack := a.lack.Load(); lack != nil {
		return lack // it was not a person who asked for the end
	}
	return err
}

// newToken prints the line of a new token, and on stderr the token.
func (a *app) newToken(c *cobra.Command, o *serveOptions, args []string) error {
	name, scopes, ok := strings.Cut(o.newToken, "=")
	if !ok || len(args) > 0 {
		return wrongFlag("new-token", "--new-token: want NAME=SCOPES, such as sensors=infer, and no model, got %q", o.newToken)
	}
	secret, line, err := serve.NewToken(name, scopes, o.expiry)
	if err != nil {
		return wrongFlag("new-token", "--new-token: %v", err)
	}
	fmt.Fprintln(a.stderr, "The token, which is shown this once:")
	fmt.Fprintln(a.stderr, secret)
	fmt.Fprintln(a.stdout, line)
	return nil
}

// openListener returns a listener; nil if it is off.
func openListener(flag, address string) (net.Listener, error) {
	if address == serve.Off {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("cannot listen on %s: %w; give another address with --%s", address, plainSystemError(err), flag)
	}
	return l, nil
}

// plainSystemError drops the name of a system call from an error.
func plainSystemError(err error) error {
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	return err
}

// openModels opens the models and pipelines and returns the number of models that are
// ready. One that does not open is told, and is an error only if it is the last.
func (a *app) openModels(ctx context.Context, s *serve.Server, config *serve.Config) (ready int, err error) {
	var first error
	var failed []string
	for _, m := range config.Models {
		err := s.Add(ctx, m)
		var fault *inference.Error
		switch {
		case ctx.Err() != nil:
			return 0, nil
		case err == nil:
		case errors.As(err, &fault):
			err = notAModel(m.Path, err)
			first = cmp.Or(first, err)
			failed = append(failed, oneLine(err.Error()))
		case errors.As(err, new(*model.FileError)): // of a line of the configuration
			return 0, err
		default:
			return 0, misusef("%v", err)
		}
	}
	for _, m := range s.Models() { // an older version may be served in place of one that does not open
		if m.Problem == "" {
			ready++
		}
	}
	if ready == 0 && len(config.Models) == 1 {
		return 0, misusef("%v", first)
	}
	for _, text := range failed {
		fmt.Fprintln(a.stderr, "Not ready:", text)
	}
	if ready == 0 {
		return 0, misusef("none of the models can be opened; the lines above say why")
	}
	for _, p := range config.Pipelines {
		if err := s.AddPipeline(p); err != nil {
			return 0, err
		}
	}
	return ready, nil
}

// notAModel says what would be a model where there is nothing that looks like one; otherwise it
// returns err.
func notAModel(path string, err error) error {
	const want = "name a directory that train wrote, one of numbered versions (1, 2, ...) that are such directories or have a model.onnx, or an ONNX file"
	if !isThere(path) {
		return fmt.Errorf("%s: there is no such file or directory; %s", path, want)
	}
	list, unread := os.ReadDir(path)
	if unread != nil || slices.ContainsFunc(list, func(f os.DirEntry) bool {
		return f.Name() == model.ConfigFile || f.Name()[0] >= '1' && f.Name()[0] <= '9'
	}) {
		return err
	}
	return fmt.Errorf("%s: the directory has neither a model's %s nor numbered versions; %s", path, model.ConfigFile, want)
}

// refuseLargeRequests makes a request fail that asks for more memory than there is, in
// place of the process.
func refuseLargeRequests() {
	if roomLeft() == nil {
		return
	}
	device.Admit = func(bytes int) {
		if bytes < 16*mebibyte {
			return // watchMemory sees these
		}
		if r := roomLeft(); r != nil && int64(bytes) > r.free-r.least() {
			panic(inference.Errorf(inference.TooLarge, "the request needs %d MiB of memory at once, and %s; send a shorter one", bytes/mebibyte, r))
		}
	}
}

// served is what a server says when it begins.
type served struct {
	HTTP   string        `json:"http,omitempty"` // the URL of HTTP, with the port that is listened on; absent if it is off
	GRPC   string        `json:"grpc,omitempty"` // the address of gRPC, host:port; absent if it is off
	Models []servedModel `json:"models"`         // models and pipelines by name
}

// servedModel is a model of a server.
type servedModel struct {
	Name     string `json:"name"`              // its name in requests
	Version  string `json:"version,omitempty"` // the newest one that is served; absent if none is
	Platform string `json:"platform"`          // the kind of model, such as onnx_onnxv1 or carousel_forecast; empty if it did not open
	Batched  bool   `json:"batched"`           // rows of several requests are computed together
	Stateful bool   `json:"stateful"`          // it keeps the states of sessions
	Problem  string `json:"problem,omitempty"` // why it is not ready; absent if it is
}

// tellServed says what is served, where, and how to try it.
func (a *app) tellServed(s *serve.Server, o *serve.Options, config *serve.Config, http, grpc net.Listener, ready int) error {
	said := &served{Models: []servedModel{}}
	if http != nil {
		said.HTTP = "http://" + reachable(http)
		if o.TLS != nil {
			said.HTTP = "https" + strings.TrimPrefix(said.HTTP, "http")
		}
	}
	if grpc != nil {
		said.GRPC = reachable(grpc)
	}
	models := s.Models()
	a.note("Serving %s:", report.Plural(ready, "model"))
	for _, m := range models {
		said.Models = append(said.Models, servedModel{m.Name, m.Version, m.Platform, m.Batched, m.Stateful, m.Problem})
		if m.Problem != "" {
			a.note("  %s: not ready", m.Name)
			continue
		}
		kind := "one request at a time"
		if m.Batched {
			kind = "requests computed together"
		}
		if m.Platform == "ensemble" {
			kind = "each stage as its model"
		}
		if m.Stateful {
			kind += ", keeps the states of sessions"
		}
		a.note("  %s version %s, %s: %s", m.Name, m.Version, m.Platform, kind)
		a.note("    inputs %s", tensorList(m.Inputs))
		a.note("    outputs %s", tensorList(m.Outputs))
	}
	for _, door := range []struct {
		name string
		l    net.Listener
	}{{"HTTP", http}, {"gRPC", grpc}} {
		if door.l == nil {
			continue
		}
		note := ""
		if at, ok := door.l.Addr().(*net.TCPAddr); ok && !at.IP.IsLoopback() {
			switch {
			case o.Access == nil && o.TLS == nil:
				note = ", open to all who reach this machine, without TLS and tokens"
			case o.Access == nil && config.Clients == "":
				note = ", open to all who reach this machine, without tokens"
			case o.TLS == nil:
				note = ", without TLS: tokens can be read on the way, unless something before this encrypts"
			}
		}
		a.note("%s on %s%s", door.name, door.l.Addr(), note)
	}
	if o.Device != tensor.CPU() && slices.ContainsFunc(models, func(m serve.ModelStatus) bool { return m.Problem == "" && m.Task == "" && m.Platform != "ensemble" }) {
		a.note("Graphs and imported weights compute on the CPU; --device is for models of tasks.")
	}
	if said.HTTP != "" {
		try := tryLine(said.HTTP, models)
		if rest, ok := strings.CutPrefix(try, "curl "); ok && o.Access != nil {
			try = `curl -H "Authorization: Bearer $TOKEN" ` + rest
		}
		a.note("Try it: %s", try)
	}
	if a.json {
		return a.printJSON("serve", said, nil)
	}
	return nil
}

// reachable is a listener's address as a client on this machine writes it.
func reachable(l net.Listener) string {
	if at, ok := l.Addr().(*net.TCPAddr); ok && at.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", fmt.Sprint(at.Port))
	}
	return l.Addr().String()
}

// tensorList lists inputs or outputs with datatypes and shapes.
func tensorList(list []inference.Info) string {
	const most = 6
	var parts []string
	for i := range list {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		text := fmt.Sprintf("%s %s%v", list[i].Name, list[i].Datatype, list[i].Dims)
		if list[i].State {
			text += " (state)"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// tryLine is a command that a server with these models answers: a request of zeros or of a
// text, or else the description of a model.
func tryLine(base string, models []serve.ModelStatus) string {
	var about string
	for i := range models {
		m := &models[i]
		if m.Problem != "" {
			continue
		}
		at := base + "/v2/models/" + url.PathEscape(m.Name)
		if about == "" {
			about = "curl " + shellQuote(at)
		}
		if body := example(m); body != "" {
			return fmt.Sprintf("curl %s -d %s", shellQuote(at+"/infer"), shellQuote(body))
		}
	}
	return about
}

// example is the body of a request that a model answers; "" if there is no short one.
func example(m *serve.ModelStatus) string {
	const most = 32 // elements
	type tensor struct {
		Name     string             `json:"name"`
		Shape    []int              `json:"shape"`
		Datatype inference.Datatype `json:"datatype"`
		Data     []any              `json:"data"`
	}
	body := struct {
		Parameters map[string]any `json:"parameters,omitempty"`
		Inputs     []tensor       `json:"inputs"`
	}{}
	if m.Stateful {
		body.Parameters = map[string]any{"sequence_id": 1, "sequence_start": true}
	}
	for _, in := range m.Inputs {
		if in.State || in.Optional {
			continue
		}
		t := tensor{in.Name, []int{}, in.Datatype, []any{}}
		n := 1
		for _, d := range in.Dims {
			if d < 0 {
				d = 1
			}
			t.Shape = append(t.Shape, d)
			n *= d
		}
		if n < 1 || n > most || in.Datatype == inference.FP16 || in.Datatype == inference.BF16 {
			return ""
		}
		for range n {
			switch {
			case in.Datatype == inference.BOOL:
				t.Data = append(t.Data, false)
			case in.Datatype != inference.BYTES:
				t.Data = append(t.Data, 0)
			case in.Name == "text":
				t.Data = append(t.Data, "a text")
			default: // a table or a sound has no short example
				return ""
			}
		}
		body.Inputs = append(body.Inputs, t)
	}
	if body.Inputs == nil {
		return ""
	}
	text, err := json.Marshal(&body)
	if err != nil {
		return ""
	}
	return string(text)
}
