package cli

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/audio/detect"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/memory"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/quantize"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/task/keywords"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/task/transcribe"
	"github.com/carousel-ml/carousel/task/translate"
	"github.com/carousel-ml/carousel/text"
)

// filled is a struct with settings: ptr begins at its defaults, and validate
// is what refuses its values.
type filled struct {
	name     string
	ptr      any
	validate func() error
}

// allFilled is every struct that flags and recipes fill.
func allFilled() []filled {
	f, c, g, t := forecast.Defaults(), classify.Defaults(), generate.Defaults(), tag.Defaults()
	tr, s, k, m := translate.Defaults(), transcribe.Defaults(), keywords.Defaults(), memory.DefaultTrial()
	all := []filled{
		{"forecast", &f, f.Validate}, {"classify", &c, c.Validate}, {"generate", &g, g.Validate}, {"tag", &t, t.Validate},
		{"translate", &tr, tr.Validate}, {"transcribe", &s, s.Validate}, {"keywords", &k, k.Validate}, {"memory", &m, m.Validate},
	}
	predict, evaluate := translate.PredictOptions{SearchOptions: translate.DefaultSearch()}, translate.EvaluateOptions{SearchOptions: translate.DefaultSearch()}
	options, anomalies := generate.DefaultPredict(), forecast.DefaultAnomalies()
	speechOptions, wordOptions := detect.DefaultSpeech(), detect.DefaultWords()
	for name, ptr := range map[string]any{
		"forecast.Predict": &forecast.PredictOptions{}, "forecast.Backtest": &forecast.BacktestOptions{}, "forecast.Evaluate": &forecast.EvaluateOptions{}, "forecast.Anomalies": &anomalies, "classify.Predict": &classify.PredictOptions{},
		"tag.Predict": &tag.PredictOptions{}, "translate.Predict": &predict, "translate.Evaluate": &evaluate,
		"generate.Predict": &options, "transcribe.Predict": &transcribe.PredictOptions{}, "transcribe.Evaluate": &transcribe.EvaluateOptions{}, "run": defaultRun(),
		"quantize": quantize.DefaultOptions(), "detect.Speech": &speechOptions, "detect.Words": &wordOptions,
		"find-lr": defaultRate(), "find-batch": &batchFlags{}, "tune": defaultSearch(), "tune --command": &programOptions{},
		"files of texts": &task.Files{}, "files of text": &generate.Files{}, "files of pairs": &translate.Files{}, "files of sound": &speech.Files{}, "files of series": &forecast.Files{},
	} {
		all = append(all, filled{name, ptr, func() error { return settings.Check(ptr) }})
	}
	return all
}

// TestEverySetting: a setting says what it is, begins within its range, and is
// refused by its own name outside of it.
func TestEverySetting(t *testing.T) {
	for _, d := range allFilled() {
		for _, s := range settings.List(d.ptr) {
			where := d.name + ": " + s.Name
			if s.Help == "" || s.Group == "" {
				t.Errorf("%s lacks a help or group tag", where)
			}
			if err := s.Check(); err != nil {
				t.Errorf("%s: the default: %v", d.name, err)
			}
			words := strings.FieldsFunc(s.Help, func(r rune) bool { return strings.ContainsRune(" ,.:;()'", r) })
			for _, w := range s.Words() {
				if slices.Contains(words, w) {
					t.Errorf("%s: the help says %q, as its choices do", where, w)
				}
			}
			before := s.String()
			for _, value := range outside(s) {
				refused(t, where, s, value, d.validate, s.Name+": want "+s.Range.String()+", got ")
			}
			if w := s.Words(); w != nil {
				refused(t, where, s, "no such word", d.validate, fmt.Sprintf("%s: want %s, got %q", s.Name, strings.Join(w, ", "), "no such word"))
				if first := w[0]; len(first) > 3 {
					refused(t, where, s, first+"x", d.validate, "; did you mean "+first+"?")
				}
			}
			if err := s.Assign(before); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
		}
	}
}

func refused(t *testing.T, where string, s *settings.Setting, value string, validate func() error, want string) {
	t.Helper()
	if err := s.Assign(value); err != nil {
		t.Errorf("%s: %q: %v", where, value, err)
		return
	}
	if err := validate(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %q: got %v, want %q", where, value, err, want)
	}
}

// outside are values just below and just above each interval of a range.
func outside(s *settings.Setting) (texts []string) {
	whole := s.Try("0.5") != nil
	add := func(v float64, out bool, to float64) {
		switch {
		case math.IsInf(v, 0):
			return
		case out: // the end itself is not in the range
		case whole:
			v += math.Copysign(1, to)
		default:
			v = math.Nextafter(v, to)
		}
		texts = append(texts, fmt.Sprint(v))
		if whole {
			texts[len(texts)-1] = fmt.Sprintf("%.0f", v)
		}
		if s.Kind() == "duration" {
			texts[len(texts)-1] += "ns"
		}
	}
	for _, i := range s.Range {
		add(i.Least, i.Above, math.Inf(-1))
		add(i.Most, i.Below, math.Inf(1))
	}
	return texts
}

// TestNumbersHaveRanges: but for seeds, of which each is right.
func TestNumbersHaveRanges(t *testing.T) {
	for _, d := range allFilled() {
		for _, s := range settings.List(d.ptr) {
			if number := s.Try("1") == nil && s.Try("word") != nil && !s.IsBool(); number && s.Range == nil && s.Name != "seed" {
				t.Errorf("%s: %s has no range", d.name, s.Name)
			}
		}
	}
}

// exceptions are the settings whose name means different things in two tasks, by
// name and aspect, and why they may.
var exceptions = map[string]string{
	"steps range":           "the range test smooths over a twentieth of its steps, so it needs twenty",
	"target kind":           "a forecast may have several targets, a translation has one",
	"target flag":           "as its kind",
	"batch 0":               "the size is chosen by the data, within limits that suit the task's samples",
	"vocabulary_size range": "the special tokens and bytes that a vocabulary has at least differ",
	"tokens the word space": "a language model writes ends of lines, so they are tokens",
	"format empty":          "predict also takes plain text, recognised by its first lines",
	"split empty":           "a language model needs no test part, and may have a validation file",
	"valid empty":           "the setting that divides the training data differs",
	"test empty":            "the setting that divides the training data differs",
	"split_column suffix":   "split is the sizes of the parts",
	"out flag":              "a training writes a directory; evaluate and backtest a file, as predict does",
	"out first words":       "as its flag",
	"refit kind":            "a training says to which rows a model is fitted again, backtest whether to train anew for each origin",
	"refit flag":            "as its kind",
	"refit first words":     "as its kind",
	"patience first words":  "a training waits for epochs; openWakeWord, whose names the options of words have, for frames",
	"patience range":        "as its first words",
	"patience 0":            "as its first words",
	"time kind":             "a series has a column of timestamps, a search a time at which it ends",
	"time flag":             "as its kind",
	"time first words":      "as its kind",
	"from flag":             "a training begins from a model, a search from an older one's trials",
	"from first words":      "as its flag",
	"rate kind":             "anomalies have a rate of false alarms, sounds one of samples",
	"rate flag":             "as its kind",
	"rate range":            "as its kind",
	"rate first words":      "as its kind",
}

// use is a setting of one struct, by what its name promises to a user.
type use struct {
	where   string
	setting *settings.Setting
	aspects map[string]string // what must be equal wherever two settings of one name have the aspect
}

// TestOneNameOneMeaning: settings of one name take the same kind of value in the same
// range, begin their help with the same words, and agree on what a value means that the
// help explains, such as 0, empty, or a word.
func TestOneNameOneMeaning(t *testing.T) {
	uses := map[string][]use{}
	for _, d := range allFilled() {
		for _, s := range settings.List(d.ptr) {
			uses[s.Name] = append(uses[s.Name], use{d.name, s, aspectsOf(s)})
		}
	}
	used := map[string]bool{}
	differ := func(name, aspect, format string, args ...any) {
		if key := name + " " + aspect; exceptions[key] == "" {
			t.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
		} else {
			used[key] = true
		}
	}
	for name, list := range uses {
		if s := list[0].setting; strings.HasPrefix(s.Help, "column ") && strings.HasSuffix(name, "_column") {
			differ(name, "suffix", "settings that name a column have no suffix")
		}
		for i, a := range list {
			for _, b := range list[:i] {
				for aspect, mine := range a.aspects {
					theirs, has := b.aspects[aspect]
					if has && mine != theirs {
						differ(name, aspect, "%s is %q in %s and %q in %s", aspect, mine, a.where, theirs, b.where)
					}
				}
				for _, two := range [][2]use{{a, b}, {b, a}} {
					for aspect, meaning := range two[0].aspects {
						if v, err := strconv.Atoi(aspect); err == nil && two[1].aspects[aspect] == "" && mayBe(two[1].setting, v) {
							differ(name, aspect, "%d means %q in %s, and may be given in %s without that", v, meaning, two[0].where, two[1].where)
						}
					}
				}
			}
		}
	}
	for key := range exceptions {
		if !used[key] {
			t.Errorf("the exception %q is needed no more", key)
		}
	}
}

// aspectsOf returns what must be equal for settings of one name: the kind of value, the
// flag's value, the range, the first words of the help, and the meaning of each value
// that the help explains, up to a semicolon.
func aspectsOf(s *settings.Setting) map[string]string {
	a := map[string]string{
		"kind": fmt.Sprintf("word %v, whole %v, fraction %v, list %v, bool %v", s.Try("word") == nil, s.Try("1") == nil, s.Try("1.5") == nil, s.IsList(), s.IsBool()),
		"flag": s.Kind(),
	}
	words := strings.Fields(s.Help)
	a["first words"] = strings.TrimRight(strings.Join(words[:min(2, len(words))], " "), ",;:")
	for _, c := range s.Choices {
		switch {
		case c.Word == "":
			a["empty"] = c.Note
		case c.Note != "":
			a["the word "+c.Word] = c.Note
		}
	}
	for _, found := range explained.FindAllStringSubmatch(s.Help, -1) {
		a[found[1]] = found[2]
	}
	if a["empty"] == "as in training" || a["empty"] == "the model's" { // options of a model that override its settings
		delete(a, "empty")
	}
	if len(s.Range) > 0 {
		least := s.Range[0].Least
		if whole := s.Try("0.5") != nil; whole && least == 0 && a["0"] != "" {
			least = 1 // 0 has a meaning of its own
		}
		last := s.Range[len(s.Range)-1]
		a["range"] = fmt.Sprint(least, s.Range[0].Above, last.Most, last.Below)
	}
	return a
}

// explained finds the values that a help explains: "(0: none; empty: all)".
var explained = regexp.MustCompile(`[(;] ?(-?[0-9]+|empty): ([^;)]*)`)

// mayBe reports whether a number is in the range of a setting.
func mayBe(s *settings.Setting, v int) bool {
	for _, i := range s.Range {
		if x := float64(v); (x > i.Least || x == i.Least && !i.Above) && (x < i.Most || x == i.Most && !i.Below) {
			return true
		}
	}
	return false
}

// TestFlagsAreOfKnownStructs: no flag is a setting of a struct that the tests above
// do not know.
func TestFlagsAreOfKnownStructs(t *testing.T) {
	known := map[string]bool{}
	for _, d := range allFilled() {
		for _, s := range settings.List(d.ptr) {
			known[s.Name+"\n"+s.Describe()] = true
		}
	}
	n := 0
	var check func(v pflag.Value)
	check = func(v pflag.Value) {
		switch v := v.(type) {
		case sharedFlag:
			check(v.Value)
			check(v.other)
		case *recipe.Flag:
			if n++; !known[v.Name+"\n"+v.Describe()] {
				t.Errorf("--%s is a setting of an unknown struct", v.Flag())
			}
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { check(f.Value) })
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{kinds: carousel.Tasks}).rootCommand())
	if n < 400 {
		t.Errorf("found only %d settings", n)
	}
}

// TestChoicesAreKnown: the words of a tag are those that the packages behind them
// have something for.
func TestChoicesAreKnown(t *testing.T) {
	words := map[string][]string{} // by struct and setting
	for _, d := range allFilled() {
		for _, s := range settings.List(d.ptr) {
			words[d.name+" "+s.Name] = slices.Sorted(slices.Values(s.Words()))
		}
	}
	for name, want := range map[string][]string{
		"classify tokens":  text.Kinds(),
		"translate tokens": text.Kinds(),
		"classify format":  {data.FormatTable, data.FormatJSONL, data.FormatLabelFirst},
		"tag format":       {data.FormatCoNLL, data.FormatCoNLLU, data.FormatBMES},
		"tag scheme":       {"auto", string(tag.Labels), string(tag.IOB1), string(tag.IOB2), string(tag.BIOES), string(tag.BMES), string(tag.BILOU)},
		"forecast layout":  {data.LayoutColumns, data.LayoutRows, data.LayoutTSF},
		"memory problem":   memory.ProblemNames(),
		"memory cells":     words["memory cell"],
	} {
		if want = slices.Sorted(slices.Values(want)); !slices.Equal(words[name], want) {
			t.Errorf("%s may be %q, want %q", name, words[name], want)
		}
	}
}
