package serve

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/internal/yaml"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/serve/inference"
)

// Off is the address of no listener.
const Off = "off"

// Config is what a server is started with, as a file has it. Empty and zero values are
// the defaults.
type Config struct {
	// HTTP and GRPC are the addresses that are listened on, host:port, :port for all
	// interfaces; [Off]: none.
	HTTP, GRPC string
	Hosts      []string // as of [Options]
	Device     string   // the name of what models compute on; "": the default
	// Drain is the time in which requests are answered after the server was asked to stop.
	Drain  time.Duration
	Limits Limits
	// Tokens is the file of [Access], Certificate and Key are those of [Certificates], and
	// Clients the authorities of clients' certificates; "": none.
	Tokens, Certificate, Key, Clients string
	// Watch is the time between looks at the files of models, tokens and certificates. 0: 5 s;
	// below 0: they are not looked at.
	Watch time.Duration
	// Store is a directory that keeps sessions while no server runs; "": none.
	Store string
	// Traces is the URL of a receiver of traces, of OTLP over HTTP ("": none), and TraceRatio
	// the part of the traces that begin here which it is sent, above 0 (0: all). Others are
	// sent if those who began them say so.
	Traces                string
	TraceRatio            float64
	LogRequests, Profiles bool // as of [Options]
	Models                []ModelConfig
	Pipelines             []PipelineConfig

	seal *seal // of the files that it was read from, its own and those of labels; nil: of none
}

// ReadConfig reads a YAML file of a server's configuration, such as
//
//	http: 127.0.0.1:8080
//	limits:
//	  body: 64MB
//	models:
//	  - path: step.onnx
//	    latency: 20ms
//
// docs/serve.md lists the keys. Relative paths are relative to the file's directory. Faults
// are [*model.FileError]s that name the line and the key, and nothing of the file is used
// then. device checks a value of the key device; if it is nil, there is no such key.
func ReadConfig(path string, device func(name string) error) (*Config, error) {
	files := filesSeal(path) // before it is read
	text, err := yaml.ReadFile(path)
	if err != nil {
		return nil, &model.FileError{File: path, Problem: "expected the configuration of a server: " + err.Error(), Err: err}
	}
	c, err := parseConfig(path, text, files, device)
	if err != nil {
		return nil, err
	}
	c.seal = files
	return c, nil
}

// parseConfig reads the text of a file. The files that it names, and that are read with it,
// are added to the seal.
func parseConfig(path, text string, files *seal, device func(name string) error) (*Config, error) {
	entries, err := yaml.Mapping(path, text)
	if err != nil {
		line, problem, _ := strings.Cut(strings.TrimPrefix(err.Error(), path), ": ") // :3, or nothing
		return nil, &model.FileError{File: path + line, Problem: problem, Err: err}
	}
	c, f := &Config{}, &configFile{path: path, dir: filepath.Dir(path), files: files}
	keys := map[string]reader{
		"http":   f.address(&c.HTTP),
		"grpc":   f.address(&c.GRPC),
		"hosts":  f.hosts(&c.Hosts),
		"drain":  f.duration(&c.Drain),
		"limits": f.mapping(f.limits(&c.Limits)),
		"tokens": f.file(&c.Tokens, "the path of a file of tokens"),
		"tls": f.mapping(map[string]reader{
			"certificate": f.file(&c.Certificate, "the path of a certificate in PEM"),
			"key":         f.file(&c.Key, "the path of a key in PEM"),
			"clients":     f.file(&c.Clients, "the path of authorities' certificates in PEM"),
		}),
		"watch": f.interval(&c.Watch),
		"store": f.file(&c.Store, "the path of a directory"),
		"traces": f.mapping(map[string]reader{
			"otlp":  f.checked(&c.Traces, CheckReceiver),
			"ratio": f.number(&c.TraceRatio, "a number above 0, at most 1", CheckRatio),
		}),
		"log_requests": f.flag(&c.LogRequests),
		"profiles":     f.flag(&c.Profiles),
		"models":       list(f, &c.Models, f.model),
		"pipelines":    list(f, &c.Pipelines, f.pipeline),
	}
	if device != nil {
		keys["device"] = f.checked(&c.Device, device)
	}
	if err := f.keys("", entries, keys); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if yaml.Text(e.Key) == "tls" && (c.Certificate == "" || c.Key == "") {
			return nil, f.wrong(e.Key, "tls: expected the keys certificate and key, and clients if clients have certificates")
		}
	}
	names := map[string]bool{}
	for _, m := range c.Models {
		name := cmp.Or(m.Name, nameOf(m.Path))
		if names[name] {
			return nil, placed(m.place, fmt.Errorf("two models have the name %q; give one another with the key name", name))
		}
		names[name] = true
	}
	return c, nil
}

func (f *configFile) limits(l *Limits) map[string]reader {
	return map[string]reader{
		"body":                   size(f, &l.Body),
		"timeout":                f.duration(&l.Timeout),
		"unread":                 f.duration(&l.Unread),
		"sessions":               f.count(&l.Sessions.Most),
		"sessions_per_client":    f.count(&l.Sessions.Client),
		"session_bytes":          size(f, &l.Sessions.Bytes),
		"session_ttl":            f.duration(&l.Sessions.Life),
		"connections":            f.count(&l.Connections),
		"connections_per_client": f.count(&l.ConnectionsPerClient),
	}
}

func (f *configFile) model(c *ModelConfig) (place *string, keys map[string]reader) {
	return &c.place, map[string]reader{
		"name":             f.modelName(&c.Name),
		"path":             f.file(&c.Path, "the path of a model"),
		"rows":             f.count(&c.Queue.Rows),
		"latency":          f.duration(&c.Queue.Latency),
		"queue":            f.count(&c.Queue.Jobs),
		"queue_per_client": f.count(&c.Queue.Client),
		"share":            f.share(&c.Queue.Share),
		"states":           f.names(&c.States),
		"batch":            f.not(&c.NoBatch),
		"labels":           f.labels(&c.Labels),
		"session_ttl":      f.duration(&c.Life),
		"versions":         f.count(&c.Versions),
	}
}

func (f *configFile) pipeline(c *PipelineConfig) (place *string, keys map[string]reader) {
	return &c.place, map[string]reader{
		"name":    f.modelName(&c.Name),
		"stages":  list(f, &c.Stages, f.stage),
		"outputs": f.texts(&c.Outputs),
	}
}

func (f *configFile) stage(c *StageConfig) (place *string, keys map[string]reader) {
	return &c.place, map[string]reader{"model": f.text(&c.Model), "inputs": f.names(&c.Inputs), "outputs": f.names(&c.Outputs)}
}

// needed are the keys that the parts of a configuration must have.
var needed = map[string][]string{"models": {"path"}, "pipelines": {"name", "stages"}, "stages": {"model"}}

// configFile reads the values of a file.
type configFile struct {
	path, dir string
	files     *seal
}

// reader reads the value of a key, whose name with those of the mappings around it is for
// messages.
type reader func(key string, n ast.Node) error

func (f *configFile) wrong(n ast.Node, format string, args ...any) error {
	return &model.FileError{File: f.place(n), Problem: fmt.Sprintf(format, args...)}
}

// place says where something stands: the file and the line.
func (f *configFile) place(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, n.GetToken().Position.Line)
}

// placed adds to an error the place in a configuration file of what it is about; "": it is
// of none.
func placed(place string, err error) error {
	if place == "" {
		return err
	}
	return &model.FileError{File: place, Problem: err.Error(), Err: err}
}

// keys reads the entries of a mapping.
func (f *configFile) keys(where string, entries []*ast.MappingValueNode, known map[string]reader) error {
	for _, e := range entries { // the parser refuses a key that is there twice
		name := yaml.Text(e.Key)
		key := strings.TrimPrefix(where+"."+name, ".")
		read := known[name]
		if read == nil {
			return f.wrong(e.Key, "there is no key %.60q%s", key, settings.DidYouMean(name, slices.Sorted(maps.Keys(known)), "", "the keys are "))
		}
		if err := read(key, e.Value); err != nil {
			return err
		}
	}
	return nil
}

func (f *configFile) mapping(known map[string]reader) reader {
	return func(key string, n ast.Node) error {
		m, ok := n.(*ast.MappingNode)
		if !ok {
			return f.wrong(n, "%s: expected lines of the form \"key: value\" below it", key)
		}
		return f.keys(key, m.Values, known)
	}
}

// list reads a list of mappings: of gives for a new entry where its place in the file is noted,
// and its keys.
func list[T any](f *configFile, to *[]T, of func(*T) (place *string, keys map[string]reader)) reader {
	return func(key string, n ast.Node) error {
		items, ok := n.(*ast.SequenceNode)
		if !ok {
			return f.wrong(n, "%s: expected a list, each entry beginning with \"- \"", key)
		}
		for i, item := range items.Values {
			m, ok := item.(*ast.MappingNode)
			if !ok {
				return f.wrong(item, "%s: expected lines of the form \"key: value\" after \"- \"", key)
			}
			first := item // its token is not on the line where it begins
			if len(m.Values) > 0 {
				first = m.Values[0].Key
			}
			var one T
			place, keys := of(&one)
			*place = f.place(first)
			if err := f.keys(fmt.Sprintf("%s[%d]", key, i), m.Values, keys); err != nil {
				return err
			}
			kind := key[strings.LastIndexByte(key, '.')+1:]
			for _, name := range needed[kind] {
				if !slices.ContainsFunc(m.Values, func(e *ast.MappingValueNode) bool { return yaml.Text(e.Key) == name }) {
					return f.wrong(first, "%s[%d]: the key %s is missing", key, i, name)
				}
			}
			*to = append(*to, one)
		}
		return nil
	}
}

// scalar reads a single value; what says what is expected.
func (f *configFile) scalar(what string, set func(text string) bool) reader {
	return func(key string, n ast.Node) error {
		if !yaml.IsScalar(n) {
			return f.wrong(n, "%s: expected %s", key, what)
		}
		if text := yaml.Text(n); !set(text) {
			return f.wrong(n, "%s: expected %s, got %.60q", key, what, text)
		}
		return nil
	}
}

func (f *configFile) text(to *string) reader {
	return f.scalar("a text that is not empty", func(text string) bool { *to = text; return text != "" })
}

// checked reads a text that may be wrong in several ways.
func (f *configFile) checked(to *string, check func(string) error) reader {
	read := f.text(to)
	return func(key string, n ast.Node) error {
		err := read(key, n)
		if err == nil {
			if err = check(*to); err != nil {
				err = f.wrong(n, "%s: %v", key, err)
			}
		}
		return err
	}
}

func (f *configFile) modelName(to *string) reader {
	return f.scalar("a name of 1 to 256 characters without / and control characters", func(text string) bool { *to = text; return checkName(text) == nil })
}

func (f *configFile) address(to *string) reader {
	return f.scalar("an address such as 127.0.0.1:8080, or "+Off, func(text string) bool { *to = cmp.Or(text, Off); return CheckAddress(*to) == nil })
}

// file reads a path, relative to the file's directory.
func (f *configFile) file(to *string, what string) reader {
	return f.scalar(what, func(text string) bool { *to = f.resolved(text); return text != "" })
}

func (f *configFile) resolved(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(f.dir, path)
}

func (f *configFile) count(to *int) reader {
	return f.scalar("a whole number from 1 to 1000000000", func(text string) bool {
		n, err := strconv.Atoi(text)
		*to = n
		return err == nil && n >= 1 && n <= 1e9
	})
}

func (f *configFile) number(to *float64, what string, right func(float64) bool) reader {
	return f.scalar(what, func(text string) bool {
		x, err := strconv.ParseFloat(text, 64)
		*to = x
		return err == nil && right(x)
	})
}

func (f *configFile) share(to *float64) reader {
	return f.number(to, "a number from 0.001 to 1000", func(x float64) bool { return x >= 0.001 && x <= 1000 })
}

func (f *configFile) duration(to *time.Duration) reader {
	return f.scalar("a time such as 20ms, 10s or 5m", func(text string) bool {
		d, err := time.ParseDuration(text)
		*to = d
		return err == nil && d > 0
	})
}

// hosts reads names of hosts.
func (f *configFile) hosts(to *[]string) reader {
	names := f.texts(to)
	return func(key string, n ast.Node) error {
		if err := names(key, n); err != nil {
			return err
		}
		for _, name := range *to {
			if err := CheckHost(name); err != nil {
				return f.wrong(n, "%s: %v", key, err)
			}
		}
		return nil
	}
}

// interval reads a time between looks.
func (f *configFile) interval(to *time.Duration) reader {
	return f.scalar("a time such as 5s, or off", func(text string) (ok bool) {
		*to, ok = ParseInterval(text)
		return ok
	})
}

// ParseInterval reads [Config]'s Watch: a time from 10 ms, or [Off].
func ParseInterval(text string) (time.Duration, bool) {
	if text == Off {
		return -1, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 10*time.Millisecond
}

func (f *configFile) flag(to *bool) reader {
	return f.scalar("true or false", func(text string) bool { *to = text == "true"; return text == "true" || text == "false" })
}

func (f *configFile) not(to *bool) reader {
	return f.scalar("true or false", func(text string) bool { *to = text == "false"; return text == "true" || text == "false" })
}

// size reads a size in bytes.
func size[T int | int64](f *configFile, to *T) reader {
	return f.scalar("a size such as 64MB or 1GiB", func(text string) bool {
		n, err := ParseSize(text)
		*to = T(n)
		return err == nil
	})
}

// texts reads a list of texts, or one.
func (f *configFile) texts(to *[]string) reader {
	return func(key string, n ast.Node) error {
		items := []ast.Node{n}
		if s, ok := n.(*ast.SequenceNode); ok {
			items = s.Values
		}
		for _, item := range items {
			if !yaml.IsScalar(item) {
				return f.wrong(item, "%s: expected a text or a list of texts", key)
			}
			*to = append(*to, yaml.Text(item))
		}
		if len(*to) == 0 {
			return f.wrong(n, "%s: expected a text or a list of texts, got an empty list", key)
		}
		return nil
	}
}

// names reads a mapping of names to names.
func (f *configFile) names(to *map[string]string) reader {
	return func(key string, n ast.Node) error {
		m, ok := n.(*ast.MappingNode)
		if !ok {
			return f.wrong(n, "%s: expected names and what they stand for, such as {a: b}", key)
		}
		*to = map[string]string{}
		for _, e := range m.Values {
			name := yaml.Text(e.Key)
			if !yaml.IsScalar(e.Value) {
				return f.wrong(e.Value, "%s.%.60s: expected a name", key, name)
			}
			(*to)[name] = yaml.Text(e.Value)
		}
		return nil
	}
}

// labels reads for each output a list of labels, or the name of a file with one in each
// line.
func (f *configFile) labels(to *map[string][]string) reader {
	return func(key string, n ast.Node) error {
		m, ok := n.(*ast.MappingNode)
		if !ok {
			return f.wrong(n, "%s: expected outputs and their labels, such as {probabilities: [no, yes]} or {probabilities: labels.txt}", key)
		}
		*to = map[string][]string{}
		for _, e := range m.Values {
			key := key + "." + yaml.Text(e.Key)
			var values []string
			if err := f.texts(&values)(key, e.Value); err != nil {
				return err
			}
			if yaml.IsScalar(e.Value) {
				path := f.resolved(values[0])
				f.files.add(path)
				var err error
				if values, err = labelsIn(path); err != nil {
					return f.wrong(e.Value, "%s: expected a list of labels or a file with one in each line: %v", key, err)
				}
			}
			(*to)[yaml.Text(e.Key)] = values
		}
		return nil
	}
}

// labelsFit returns an error for labels of outputs that a model does not have.
func labelsFit(labels map[string][]string, outs []inference.Info) error {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if !slices.ContainsFunc(outs, func(o inference.Info) bool { return o.Name == name }) {
			return fmt.Errorf("labels: there is no output %q; the outputs are %s", name, listed(outs))
		}
	}
	return nil
}

// labelsIn reads a file with a label in each line.
func labelsIn(path string) (labels []string, err error) {
	r, err := data.OpenLines(path, data.EncodingUTF8)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		text, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return labels, nil
		case err != nil:
			return nil, err
		}
		labels = append(labels, text)
	}
}

// units are the words of sizes, in bytes.
var units = []struct {
	word  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// ParseSize reads a size in bytes, from 1 to 2^53, such as 64MB (millions of bytes), 64MiB
// (of 2^20) or 1000.
func ParseSize(text string) (int64, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.word)
		if !ok {
			continue
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if x *= u.bytes; err != nil || !(x >= 1 && x <= 1<<53) || x != math.Trunc(x) || strings.ContainsAny(number, "xXpP_") {
			break
		}
		return int64(x), nil
	}
	return 0, fmt.Errorf("expected a size such as 64MB or 1GiB, got %.60q", text)
}

// CheckReceiver returns an error for a text that cannot be the URL of a receiver of traces.
func CheckReceiver(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("expected the URL of a receiver of OTLP over HTTP, such as http://127.0.0.1:4318") // and not what it is: it may hold a secret
	}
	return nil
}

// CheckRatio reports whether a number can be [Config]'s TraceRatio.
func CheckRatio(x float64) bool { return x > 0 && x <= 1 }

// CheckAddress returns an error for a text that cannot be an address to listen on, nor
// [Off].
func CheckAddress(text string) error {
	if text == Off {
		return nil
	}
	_, port, err := net.SplitHostPort(text)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n > math.MaxUint16 {
		return fmt.Errorf("expected an address such as 127.0.0.1:8080, :8080 for all interfaces, or %s, got %.60q", Off, text)
	}
	return nil
}
