package trials

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/internal/yaml"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tune"
)

// shipped is what is tuned of each task by default: the settings that matter in practice, in ranges around
// what practice uses, on the small side, where trials are cheap. A row is of the tasks that it names, or of all that have the setting; of
// several rows of a setting the first that fits counts.
var shipped = []struct {
	name      string
	low, high float64
	step      float64 // 0: any
	log       bool
	tasks     string // "": all that have the setting
}{
	{"lr", 1e-3, 2e-2, 0, true, "generate"},
	{"lr", 3e-4, 1e-2, 0, true, ""},
	{"cell", 0, 0, 0, false, "forecast"},
	{"hidden", 128, 768, 64, false, "generate translate"},
	{"hidden", 32, 256, 32, false, ""},
	{"embedding", 128, 512, 64, false, "translate"},
	{"layers", 1, 2, 1, false, ""},
	{"rnn_dropout", 0, 0.5, 0.05, false, "classify forecast keywords tag transcribe translate"},
	{"dropout", 0, 0.6, 0.05, false, ""},
	{"token_dropout", 0, 0.3, 0.05, false, "classify"},
	{"word_dropout", 0, 0.3, 0.05, false, "tag"},
	{"smoothing", 0, 0.2, 0.05, false, "translate"},
	{"weight_decay", 1e-6, 1e-1, 0, true, "classify forecast generate keywords tag transcribe translate"},
	{"batch", 8, 128, 0, true, "classify forecast generate keywords tag transcribe"},
	{"batch_tokens", 200, 4000, 0, true, "translate"},
}

// Space returns the space that is shipped for a task, around the settings cfg, which are its defaults. A range
// is widened to hold its default. A setting whose value depends on the data, as 0 says of some, is left out.
func Space(k *task.Kind, cfg task.Config) *tune.Space {
	s := &tune.Space{}
	list := settings.List(cfg)
	for _, row := range shipped {
		one := settings.Named(list, row.name)
		if one == nil || row.tasks != "" && !slices.Contains(strings.Fields(row.tasks), k.Name) || s.Param(row.name) != nil {
			continue
		}
		p := &tune.Param{Name: row.name, Low: row.low, High: row.high, Step: row.step, Log: row.log}
		if words := one.Words(); len(words) > 0 {
			p.Type, p.Choices = tune.Choice, choices(k, cfg, row.name)
			if len(p.Choices) < 2 {
				continue
			}
			p.Default = one.String()
			s.Params = append(s.Params, p)
			continue
		}
		if one.Kind() == "n" {
			p.Type = tune.Int
		}
		value, err := strconv.ParseFloat(one.String(), 64)
		if err != nil || row.log && value <= 0 {
			continue
		}
		if floor := settings.Named(list, "min_lr"); row.name == "lr" && floor != nil {
			least, _ := strconv.ParseFloat(floor.String(), 64) // a number
			p.Low = max(p.Low, least)
		}
		p.Low, p.High = min(p.Low, value), max(p.High, value)
		p.Default = value
		if row.name == "rnn_dropout" { // between layers
			layers := s.Param("layers")
			for n := 2; n <= int(layers.High); n++ {
				p.Equals = append(p.Equals, strconv.Itoa(n))
			}
			p.When = "layers"
		}
		s.Params = append(s.Params, p)
	}
	return s
}

// choices are the value of a setting of words and the two words that stand first, which are the usual
// ones, as far as they go with the other settings.
func choices(k *task.Kind, cfg task.Config, name string) (list []string) {
	own := settings.Named(settings.List(cfg), name)
	words := own.Words()
	for i, word := range words {
		other := copyOf(k, cfg)
		if i >= 2 && word != own.String() || assign(settings.List(other), name, word) != nil || other.Validate() != nil {
			continue
		}
		list = append(list, word)
	}
	return list
}

// Space returns the space that is shipped for the task, around Base as the data settle it.
func (t *Task) Space() *tune.Space {
	cfg := copyOf(t.Kind, t.Base)
	list, settled := settings.List(cfg), settings.List(t.settled)
	for _, name := range []string{"batch", "batch_tokens"} {
		if one := settings.Named(list, name); one != nil && one.IsZero() {
			_ = one.Assign(settings.Named(settled, name).String()) // of the same type
		}
	}
	return Space(t.Kind, cfg)
}

// fixed are settings that are no parameters, and why.
var fixed = map[string]string{
	"seed":     "the best trials are repeated with other seeds in the end",
	"epochs":   "it is the resource of all trials; set it for all",
	"max_time": "it would make trials depend on the machine's speed",
	"patience": "how long a trial runs is the pruner's to decide",
	"from":     "set it for all",
	"horizon":  "what is forecast would differ between trials",
}

// perToken are settings that decide what a token is, of tasks that are scored by the loss of a token.
var perToken = map[string][]string{"generate": {"tokens", "vocabulary_size", "min_count"}}

const otherParts = "trials would be scored on different data"

// parts are settings that decide which samples a trial is scored on.
var parts = []string{"holdout", "fold", "split", "split_column", "speaker", "format", "text", "label", "time", "id", "target", "freq", "layout", "missing", "data"}

// ReadSpace reads the file of a space for a task: its parameters are settings, and their values such as the settings
// take. Parameters without a default have base's value, where it is in their range. What is
// wrong is a *data.InputError with the line.
func ReadSpace(path string, k *task.Kind, base task.Config) (*tune.Space, error) {
	text, err := yaml.ReadFile(path)
	if err != nil {
		return nil, &data.InputError{File: path, Problem: err.Error(), Fix: "name a file of parameters and their ranges"}
	}
	s, err := tune.ParseSpace(path, text)
	if err != nil {
		return nil, data.Errorf("%w", err)
	}
	for _, p := range s.Params {
		one := settings.Named(settings.List(base), p.Name)
		if one == nil || p.Default != nil {
			continue
		}
		if v, err := p.Parse(one.String()); err == nil {
			p.Default = v
		}
	}
	return s, check(path, k, base, s)
}

// Check returns a *data.InputError for a space that is not one of the task.
func (t *Task) Check(s *tune.Space) error {
	if err := check("", t.Kind, t.Base, s); err != nil {
		return err
	}
	if !t.Kind.CanProbe() && slices.Contains(t.measures(s.Constraints), Latency) {
		return &data.InputError{Problem: fmt.Sprintf("latency cannot be measured of models of task %s, which have no Probe", t.Kind.Name), Fix: "leave latency out"}
	}
	return nil
}

// check finds parameters that are no settings, and values that settings refuse.
func check(path string, k *task.Kind, base task.Config, s *tune.Space) error {
	wrong := func(line int, fix, format string, a ...any) error {
		return &data.InputError{File: path, Line: line, Problem: fmt.Sprintf(format, a...), Fix: fix}
	}
	var names []string
	for _, one := range settings.List(base) {
		names = append(names, one.Name)
	}
	for _, p := range s.Params {
		cfg := copyOf(k, base)
		one := settings.Named(settings.List(cfg), p.Name)
		why := fixed[p.Name]
		if slices.Contains(parts, p.Name) {
			why = otherParts
		} else if slices.Contains(perToken[k.Name], p.Name) {
			why = "trials would be scored by the loss of different tokens"
		}
		switch {
		case one == nil:
			return wrong(p.Line, "name a setting of train "+k.Name, "%s: unknown setting%s", p.Name, settings.DidYouMean(p.Name, names, "", ""))
		case why != "":
			return wrong(p.Line, "leave it out", "%s: not a parameter of trials: %s", p.Name, why)
		case one.IsList():
			return wrong(p.Line, "leave it out", "%s: it is a list, of which there is no range", p.Name)
		}
		values := []any{p.At(0), p.At(0.382), p.At(1)}
		if p.Type == tune.Choice {
			values = values[:0]
			for _, c := range p.Choices {
				values = append(values, c)
			}
		}
		for _, v := range values {
			err := one.Assign(p.Text(v))
			if err == nil {
				err = one.Check()
			}
			if err != nil {
				return wrong(p.Line, "choose a range within that of the setting", "%s: %s: %s", p.Name, p.Text(v), strings.TrimPrefix(err.Error(), p.Name+": "))
			}
		}
	}
	for _, c := range s.Constraints {
		if name := c.Measured(); name != "" && name != Latency && name != Size {
			return wrong(c.Line, "write a parameter of the space, latency or size", "constraint %q: %s is neither a parameter nor a measure", c.Text, name)
		}
	}
	return nil
}

// defaultsOf returns the number of the trial of a space's defaults, -1 if there is none.
func defaultsOf(s *tune.Space, list []*tune.Record) int {
	defaults := s.Defaults()
	at := slices.IndexFunc(list, func(r *tune.Record) bool { return defaults != nil && same(s, r.Values, defaults) })
	if at < 0 {
		return -1
	}
	return list[at].Number
}

func same(s *tune.Space, a, b tune.Values) bool {
	return slices.Equal(texts(s, a), texts(s, b))
}

func texts(s *tune.Space, v tune.Values) (list []string) {
	for _, p := range s.Params {
		if one, has := v[p.Name]; has {
			list = append(list, p.Name+"="+p.Text(one))
		}
	}
	return list
}
