package trials

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/tune"
)

// texts writes a file of texts of two classes, which share most words.
func textsFile(t testing.TB) string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString("text,label\n")
	for i := range 160 {
		words := []string{}
		for range 5 + r.IntN(5) {
			words = append(words, fmt.Sprint("w", r.IntN(30)))
		}
		words[r.IntN(len(words))] = fmt.Sprint([]string{"good", "bad"}[i%2], r.IntN(6))
		fmt.Fprintf(&b, "%s,%s\n", strings.Join(words, " "), []string{"yes", "no"}[i%2])
	}
	return write(t, "texts.csv", b.String())
}

// seriesFile writes a table of a noisy wave.
func seriesFile(t testing.TB) string {
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	b.WriteString("x\n")
	for i := range 400 {
		fmt.Fprintf(&b, "%.3f\n", 10+3*math.Sin(float64(i)/4)+r.NormFloat64())
	}
	return write(t, "series.csv", b.String())
}

func write(t testing.TB, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// kindOf returns a task, its files and small settings.
func kindOf(t testing.TB, name string) (k *task.Kind, files any, cfg task.Config) {
	set := map[string]string{"hidden": "8", "epochs": "6", "lr": "0.005"}
	switch name {
	case "classify":
		k, files = classify.Task, &task.Files{Data: textsFile(t)}
		set["embedding"], set["batch"], set["holdout"] = "8", "16", "0.3"
	case "forecast":
		k, files = forecast.Task, &forecast.Files{Data: seriesFile(t)}
		set["target"], set["window"], set["horizon"], set["layers"], set["batch"] = "x", "12", "4", "1", "32"
	}
	cfg = k.Config()
	for name, text := range set {
		if err := assign(settings.List(cfg), name, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return k, files, cfg
}

func newTask(t testing.TB, name string, objectives ...string) *Task {
	k, files, cfg := kindOf(t, name)
	one, err := NewTask(t.Context(), k, files, cfg, objectives)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func space(t testing.TB, text string) *tune.Space {
	s, err := tune.ParseSpace("space.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A run that is paused and resumed in other folders, with a checkpoint alone, has the weights of one that was not, to the
// bit, and those of a training with the same settings.
func TestPausedToTheBit(t *testing.T) {
	for _, name := range []string{"classify", "forecast"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			subject := newTask(t, name, "", Size)
			s := space(t, "lr: {low: 1e-3, high: 1e-1, log: true, default: 0.004}\ndropout: {low: 0, high: 0.5, default: 0.25}")
			v := s.Defaults()
			var gate sync.Mutex
			try := func(until int, checkpoint []byte) (weights, saved []byte, curve []float64, score *Score) {
				r := &Run{Space: s, Values: v, Checkpoint: checkpoint, Every: time.Hour, Dir: t.TempDir(), gate: &gate}
				r.Resume = func(int) bool { return false }
				r.Report = func(at, _ int, values []float64) (bool, error) {
					curve = append(curve, values[0])
					return at == until, nil
				}
				r.Save = func(b []byte) error { saved = b; return nil }
				score, err := subject.Try(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				weights, err = os.ReadFile(filepath.Join(r.Dir, model.WeightsFile))
				if (err == nil) != (until == 0) {
					t.Fatal(err)
				}
				return weights, saved, curve, score
			}
			whole, _, curve, score := try(0, nil)
			_, one, first, _ := try(1, nil)
			_, two, second, _ := try(3, one)
			parts, _, third, last := try(0, two)
			if string(parts) != string(whole) {
				t.Error("the weights differ")
			}
			if !slices.Equal(slices.Concat(first, second, third), curve) || len(curve) != 6 || !slices.Equal(last.Values, score.Values) {
				t.Errorf("%v, %v and %v instead of %v; %v instead of %v", first, second, third, curve, last, score)
			}
			if score.Values[1] != float64(len(whole)) || score.Measures[Size] != score.Values[1] {
				t.Errorf("size %v of %d bytes", score, len(whole))
			}
			cfg, err := subject.Config(s, v)
			if err != nil {
				t.Fatal(err)
			}
			d, err := subject.Kind.Read(t.Context(), subject.files, cfg)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if _, _, err := subject.Kind.Train(t.Context(), d, cfg, &train.Run{Dir: dir}); err != nil {
				t.Fatal(err)
			}
			if alone, err := os.ReadFile(filepath.Join(dir, model.WeightsFile)); err != nil || string(alone) != string(whole) {
				t.Errorf("a training makes other weights: %v", err)
			}
		})
	}
}

// A run that is cancelled saves a checkpoint first, from which it goes on.
func TestCancelled(t *testing.T) {
	subject := newTask(t, "classify")
	s := space(t, "lr: {low: 1e-3, high: 1e-1, log: true, default: 0.004}")
	var gate sync.Mutex
	var saved []byte
	try := func(ctx context.Context, cancel context.CancelCauseFunc, checkpoint []byte) (curve []float64, err error) {
		r := &Run{Space: s, Values: s.Defaults(), Checkpoint: checkpoint, Every: time.Hour, Dir: t.TempDir(), gate: &gate}
		r.Resume = func(int) bool { return false }
		r.Report = func(at, _ int, values []float64) (bool, error) {
			curve = append(curve, values[0])
			if at == 2 && cancel != nil {
				cancel(tune.ErrFenced)
			}
			return false, nil
		}
		r.Save = func(b []byte) error { saved = b; return nil }
		_, err = subject.Try(ctx, r)
		return curve, err
	}
	whole, err := try(t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	first, err := try(ctx, cancel, nil)
	if !errors.Is(err, tune.ErrFenced) || saved == nil {
		t.Fatalf("%v, %d bytes saved", err, len(saved))
	}
	rest, err := try(t.Context(), nil, saved)
	if err != nil || !slices.Equal(slices.Concat(first, rest), whole) {
		t.Errorf("%v and %v instead of %v: %v", first, rest, whole, err)
	}
}

// study begins a study of a subject in a store.
func study(t testing.TB, s Subject, space *tune.Space, store tune.Store, o tune.Options) *tune.Study {
	h, _, err := Begin(s, space, o)
	if err != nil {
		t.Fatal(err)
	}
	one, err := tune.Open(t.Context(), store, h, space)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

// small is a space whose trials take no time.
const small = `
lr: {low: 1e-3, high: 1e-1, log: true, default: 0.005}
hidden: {low: 4, high: 16, type: int, default: 8}
dropout: {low: 0, high: 0.5, step: 0.05, default: 0.3}
layers: {low: 1, high: 2, type: int, default: 1}
rnn_dropout: {low: 0.1, high: 0.5, default: 0.2, when: layers, is: [2]}
`

// A study of a task has the same trials for any number of workers, and its best ones are repeated and judged.
func TestStudyOfTask(t *testing.T) {
	var want string
	for _, workers := range []int{1, 3} {
		subject := newTask(t, "classify")
		s := study(t, subject, space(t, small), tune.NewMemory(), tune.Options{Trials: 9, Sampler: "random", Pruner: "asha", Lag: 3, Seed: 1})
		if s.Options.Resource != 6 || s.Options.Objectives[0] != (tune.Objective{Name: "accuracy", Maximize: true}) {
			t.Fatalf("%+v", s.Options)
		}
		o := &Options{Workers: workers, Scratch: t.TempDir()}
		if err := Work(t.Context(), s, subject, o); err != nil {
			t.Fatal(err)
		}
		list, err := s.Trials(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		states := map[tune.State]int{}
		for _, r := range list {
			states[r.State]++
			fmt.Fprintln(&got, r.Number, r.Values, r.State, r.Results, r.Curve, r.Error)
		}
		if want == "" {
			want = got.String()
			t.Log(states, "\n"+want)
		} else if got.String() != want {
			t.Errorf("other trials:\n%s", got.String())
		}
		if len(list) != 9 || states[tune.Complete] == 0 || states[tune.Paused] == 0 || list[0].Origin != "default" || list[0].Steps == 0 {
			t.Error(states)
		}
		if left, _ := os.ReadDir(o.Scratch); len(left) > 0 {
			t.Errorf("%d folders are left", len(left))
		}
		if workers == 1 {
			continue
		}
		if err := Repeat(t.Context(), s, subject, o); err != nil {
			t.Fatal(err)
		}
		v, err := Judge(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(v.Text)
		for _, f := range v.Finalists {
			if len(f.Values) != Seeds || f.Failed > 0 {
				t.Errorf("%+v", f)
			}
		}
	}
}

// A trial whose settings cannot be trained is a failure, and the study goes on. What no trial can have ends it.
func TestFailures(t *testing.T) {
	k, files, cfg := kindOf(t, "classify")
	subject, err := NewTask(t.Context(), k, files, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := space(t, "lr: {low: 1, high: 10, default: 10}\nsmoothing: {low: 0, high: 0.5, default: 0.1}\nlayers: {low: 1, high: 2, type: int, default: 1}\nrnn_dropout: {low: 0.1, high: 0.5, default: 0.2}")
	one := study(t, subject, s, tune.NewMemory(), tune.Options{Trials: 3, Sampler: "random"})
	if err := Work(t.Context(), one, subject, &Options{}); err != nil {
		t.Fatal(err)
	}
	list, err := one.Trials(t.Context())
	if err != nil || len(list) != 3 || list[0].State != tune.Failed || !strings.Contains(list[0].Error, "rnn_dropout") {
		t.Errorf("%+v, %v", list[0], err)
	}
	large := space(t, "hidden: {low: 8, high: 2048, type: int, default: 2048}")
	one = study(t, subject, large, tune.NewMemory(), tune.Options{Trials: 1, Sampler: "random"})
	if err := Work(t.Context(), one, subject, &Options{Memory: 128 << 20}); err != nil {
		t.Fatal(err)
	}
	if list, err = one.Trials(t.Context()); err != nil || !strings.HasPrefix(list[0].Error, "out of memory: it needs ") {
		t.Error(list[0].Error, err)
	}
	if _, err := NewTask(t.Context(), k, files, cfg, []string{"accuracy", ""}); err == nil {
		t.Error("an objective was taken twice")
	}
	if _, err := NewTask(t.Context(), k, files, cfg, []string{"latency", "accuracy"}); err == nil || err.Error() != "the first objective is latency, for which the least network is the best; name a metric before it, such as accuracy,latency" {
		t.Error(err)
	}
	for _, name := range []string{"f2", "-loss", "-size"} {
		_, err := NewTask(t.Context(), k, files, cfg, []string{name})
		var input *data.InputError
		if !errors.As(err, &input) || err.Error() != fmt.Sprintf("objective %q: expected one of accuracy, macro_f1, loss, latency, size; name one of these", name) {
			t.Error(err)
		}
	}
	all, err := NewTask(t.Context(), k, files, cfg, []string{"-macro_f1", "accuracy", "loss", "size"})
	if want := []tune.Objective{{Name: "macro_f1", Maximize: true}, {Name: "accuracy", Maximize: true}, {Name: "loss"}, {Name: "size"}}; err != nil || !slices.Equal(all.Objectives(), want) {
		t.Errorf("%+v, %v", all, err)
	}
}

// Latency and size are measured of each model, as objectives and for constraints, and make a study one that cannot be repeated, or not.
func TestMeasured(t *testing.T) {
	for _, name := range []string{"classify", "forecast"} {
		subject := newTask(t, name, "", Latency)
		s := space(t, "hidden: {low: 4, high: 256, type: int, log: true, default: 8}\nconstraints: ['size <= 40000']")
		h, why, err := Begin(subject, s, tune.Options{Trials: 5, Sampler: "random", Seed: 1})
		if err != nil || !strings.Contains(why, "latency") {
			t.Fatal(why, err)
		}
		one, err := tune.Open(t.Context(), tune.NewMemory(), h, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := Work(t.Context(), one, subject, &Options{Workers: 2}); err != nil {
			t.Fatal(err)
		}
		list, err := one.Trials(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, r := range list {
			if r.State != tune.Complete || !(r.Results[1] > 0.001 && r.Results[1] < 1000) || r.Measures[Latency] != r.Results[1] {
				t.Errorf("%s: %+v", name, r)
			}
			if small := r.Measures[Size] <= 40000; small == (len(r.Broken) > 0) {
				t.Errorf("%s: size %v, broken %v", name, r.Measures[Size], r.Broken)
			} else if small {
				kept++
			}
		}
		if kept == 0 || kept == len(list) {
			t.Errorf("%s: %d trials are small enough", name, kept)
		}
		if _, why, _ := Begin(newTask(t, name, "", Size), s, tune.Options{}); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
}
