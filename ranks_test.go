package carousel_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/speech/speechtest"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

// rankRuns are small trainings of the tasks, whose validation and test take several
// batches: files that are written to a directory, and settings.
var rankRuns = []struct {
	task, name string
	write      func(t *testing.T, dir string) // data, valid and test, each with the ending of ext, or data alone
	ext        string
	settings   []string
}{
	{"classify", "one label", writeReviews, ".csv", []string{"hidden 6", "embedding 4", "epochs 2", "batch 16", "min_count 1"}},
	{"tag", "spans", writeNames, ".conll", []string{"hidden 6", "embedding 4", "epochs 2", "batch 16", "min_count 1"}},
	{"tag", "labels", writeNames, ".conll", []string{"hidden 6", "embedding 4", "epochs 2", "batch 16", "min_count 1", "scheme labels", "decoder softmax"}},
	{"translate", "greedy", writePairs, ".tsv", []string{"hidden 8", "embedding 8", "epochs 4", "lr 0.03", "batch_tokens 64", "min_count 1", "tokens space", "beam 2", "scheduled_sampling 0.5"}},
	{"translate", "carried", writePairs, ".tsv", []string{"hidden 8", "embedding 8", "epochs 4", "lr 0.03", "batch_tokens 64", "min_count 1", "tokens space", "beam 2", "carry_state true"}},
	{"generate", "characters", writeTexts, ".txt", []string{"hidden 8", "embedding 4", "epochs 2", "batch 4", "bptt 16"}},
	{"generate", "words", writeTexts, ".txt", []string{"hidden 8", "embedding 8", "epochs 1", "batch 4", "bptt 8", "tokens space", "softmax adaptive", "cutoffs 8,16"}},
	{"keywords", "", writeSounds, ".csv", []string{"hidden 6", "layers 1", "bands 12", "epochs 2", "batch 2", "label text"}},
	{"transcribe", "greedy", writeSounds, ".csv", []string{"hidden 8", "layers 1", "bands 12", "epochs 2", "batch 2"}},
	{"transcribe", "lexicon", writeSounds, ".csv", []string{"hidden 8", "layers 1", "bands 12", "epochs 1", "batch 2", "lexicon words.txt", "beam 4"}},
	{"forecast", "mixture", writeHours, ".csv", []string{"target a,b", "time time", "hidden 6", "layers 1", "window 24", "horizon 6", "epochs 2", "batch 32", "window_stride 3", "split rest,400,400"}},
	{"forecast", "quantiles", writeHours, ".csv", []string{"target a", "time time", "loss quantile", "hidden 6", "layers 1", "window 24", "horizon 6", "epochs 1", "batch 32", "window_stride 3", "split rest,400,400", "members 2", "refit_steps 0.3", "skip none"}},
}

// Ranks train what one process trains that accumulates all their batches: the weights, the
// history of validation, the files of the model and its scores are the same to the bit. Of
// the network's passes without a gradient each rank computes its share, and none is
// computed twice.
func TestRanksOfTasks(t *testing.T) {
	for _, run := range rankRuns {
		t.Run(strings.TrimSpace(run.task+" "+run.name), func(t *testing.T) {
			kind := carousel.Tasks[slices.IndexFunc(carousel.Tasks, func(k *task.Kind) bool { return k.Name == run.task })]
			from := t.TempDir()
			run.write(t, from)
			fit := func(ranks int) []rankResult {
				list := make([]rankResult, ranks)
				dir := t.TempDir()
				var all sync.WaitGroup
				for rank, w := range traintest.Worlds(ranks) {
					all.Go(func() {
						files, cfg := kind.Files(), kind.Config()
						set(t, files, from, "data data"+run.ext, "valid valid"+run.ext, "test test"+run.ext)
						set(t, cfg, from, append(run.settings, fmt.Sprint("accumulate ", 2/ranks))...)
						if err := list[rank].fit(t, kind, files, cfg, &train.Run{Dir: dir, World: w}); err != nil {
							w.Abort(err)
							t.Error(err)
						}
					})
				}
				all.Wait()
				return list
			}
			alone := fit(1)[0]
			if t.Failed() {
				t.FailNow()
			}
			passes := int64(0)
			for rank, r := range fit(2) {
				if r.history != alone.history {
					t.Errorf("rank %d: the history is\n%s, alone\n%s", rank, r.history, alone.history)
				}
				if !slices.Equal(r.weights, alone.weights) {
					t.Errorf("rank %d: the weights are not those of one process", rank)
				}
				if !bytes.Equal(r.scores, alone.scores) {
					t.Errorf("rank %d: the scores are\n%s, alone\n%s", rank, r.scores, alone.scores)
				}
				if share := float64(r.passes) / float64(alone.passes); share < 0.3 || share > 0.7 {
					t.Errorf("rank %d: %d passes, alone %d", rank, r.passes, alone.passes)
				}
				if passes += r.passes; rank == 0 {
					compareFiles(t, r.dir, alone.dir)
				}
			}
			if passes != alone.passes {
				t.Errorf("%d passes of all ranks, alone %d", passes, alone.passes)
			}
			// Another number of ranks scores the model.
			var all sync.WaitGroup
			for rank, w := range traintest.Worlds(3) {
				all.Go(func() {
					m, err := carousel.Open(alone.dir)
					if err == nil {
						files := kind.Files()
						set(t, files, from, "data data"+run.ext, "valid valid"+run.ext, "test test"+run.ext)
						var r rankResult
						if err = r.score(train.WithWorld(t.Context(), w), m, files); err == nil && !bytes.Equal(r.scores, alone.scores) {
							t.Errorf("rank %d of 3: the scores are\n%s, alone\n%s", rank, r.scores, alone.scores)
						}
					}
					if err != nil {
						w.Abort(err)
						t.Error(err)
					}
				})
			}
			all.Wait()
		})
	}
}

// rankResult is what a rank has at the end.
type rankResult struct {
	dir     string
	history string
	weights []float32
	scores  []byte
	passes  int64
}

// counting counts the rows of passes of recurrent layers that no gradient follows: tasks
// share batches, or the rows of a batch.
type counting struct {
	device.Backend
	passes atomic.Int64
}

func (c *counting) Scan(s *device.ScanSpec) {
	if !s.Keep {
		c.passes.Add(int64(s.B))
	}
	c.Backend.Scan(s)
}

func (r *rankResult) fit(t *testing.T, kind *task.Kind, files any, cfg task.Config, run *train.Run) error {
	b := &counting{Backend: cpu.New(simd.Best())}
	run.Device = tensor.NewDevice(b)
	d, err := kind.Read(t.Context(), files, cfg)
	if err != nil {
		return err
	}
	m, result, err := kind.Train(t.Context(), d, cfg, run)
	if err != nil {
		return err
	}
	r.dir = run.Dir
	for _, one := range result.History {
		one.Seconds = 0
		r.history += fmt.Sprintf("%+v\n", one)
	}
	for _, p := range m.Slab().Params {
		r.weights = append(r.weights, p.Read()...)
	}
	err = r.score(train.WithWorld(t.Context(), run.World), m, files)
	r.passes = b.passes.Load()
	return err
}

var taken = regexp.MustCompile(`"taken":[^,}]*`)

// score evaluates a model as the command does after a training.
func (r *rankResult) score(ctx context.Context, m *task.Trained, files any) error {
	d, err := m.Read(ctx, files, task.Test)
	if err != nil {
		return err
	}
	o := m.Kind.Evaluating()
	if one, ok := o.(task.Inheritor); ok {
		one.Inherit(m.Model, func(string) bool { return false })
	}
	if one, ok := o.(interface{ ForReport() }); ok {
		one.ForReport()
	}
	e, err := m.Evaluate(ctx, d, task.Test, o)
	if err != nil {
		return err
	}
	if r.scores, err = result.JSON(e); err != nil {
		return err
	}
	r.scores = taken.ReplaceAll(r.scores, nil)
	tally, err := m.Tally(ctx, d, task.Test, o)
	if err == nil {
		r.scores = fmt.Appendf(r.scores, "\n%s %v", tally.Name, tally.Rows)
	}
	return err
}

// set sets settings from "name value"; words.txt and the names of files are in a
// directory. Those that the struct lacks, of files that are not there, are left out.
func set(t *testing.T, ptr any, dir string, pairs ...string) {
	t.Helper()
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, " ")
		if path := filepath.Join(dir, value); strings.Contains(value, ".") {
			if _, err := os.Stat(path); err == nil {
				value = path
			}
		}
		one := settings.Named(settings.List(ptr), name)
		if one == nil {
			if name == "valid" || name == "test" {
				continue
			}
			t.Errorf("there is no setting %s", name)
			return
		}
		if err := one.Assign(value); err != nil {
			t.Error(err)
		}
	}
}

// compareFiles wants two directories to have the same files of a model, but for the
// number of batches to a step, and with it the sum of config.json.
func compareFiles(t *testing.T, got, want string) {
	t.Helper()
	accumulate := regexp.MustCompile(`"accumulate": \d+|"task": "\w+",\s+"sha256": "\w+"`)
	read := func(dir string) map[string]string {
		files := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			name := strings.TrimPrefix(path, dir)
			if err != nil || e.IsDir() || strings.HasPrefix(name, "/checkpoints") || name == "/metrics.jsonl" {
				return err
			}
			content, err := os.ReadFile(path)
			files[name] = accumulate.ReplaceAllString(string(content), "")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	g, w := read(got), read(want)
	if len(g) != len(w) || len(w) < 2 {
		t.Errorf("%d files, alone %d", len(g), len(w))
	}
	for name, content := range w {
		if g[name] != content {
			t.Errorf("%s differs from that of one process", name)
		}
	}
}

// write writes lines to data, valid and test with an ending: the number of each, drawn
// one after the other.
func write(t *testing.T, dir, ext, head string, numbers [3]int, line func(r *rand.Rand) string) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 5))
	for i, name := range []string{"data", "valid", "test"} {
		var b strings.Builder
		b.WriteString(head)
		for range numbers[i] {
			b.WriteString(line(r))
		}
		if err := os.WriteFile(filepath.Join(dir, name+ext), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func pick(r *rand.Rand, words string) string {
	list := strings.Fields(words)
	return list[r.IntN(len(list))]
}

func writeReviews(t *testing.T, dir string) {
	write(t, dir, ".csv", "text,label\n", [3]int{120, 1024, 1024}, func(r *rand.Rand) string {
		label := pick(r, "good bad")
		words := []string{pick(r, map[string]string{"good": "lovely great fine", "bad": "dull slow fine"}[label])}
		for range 1 + r.IntN(6) {
			words = append(words, pick(r, "the a film story night was is not"))
		}
		return strings.Join(words, " ") + "," + label + "\n"
	})
}

func writeNames(t *testing.T, dir string) {
	write(t, dir, ".conll", "", [3]int{120, 1024, 1024}, func(r *rand.Rand) string {
		var b strings.Builder
		for range 1 + r.IntN(5) {
			fmt.Fprintf(&b, "%s O\n", pick(r, "the a went to saw in of"))
		}
		fmt.Fprintf(&b, "%s B-PER\n%s I-PER\n", pick(r, "Ann Bob Eve"), pick(r, "Smith Jones Lee"))
		fmt.Fprintf(&b, "%s %s\n\n", pick(r, "Paris Rome Lee"), pick(r, "B-LOC B-LOC O"))
		return b.String()
	})
}

func writeTexts(t *testing.T, dir string) {
	write(t, dir, ".txt", "", [3]int{200, 600, 10}, func(r *rand.Rand) string {
		var words []string
		for range 4 + r.IntN(9) {
			words = append(words, strings.Fields("the cat dog bird sat lay sang on in under mat floor tree and then slept until it rained again")[r.IntN(19)])
		}
		return strings.Join(words, " ") + ".\n"
	})
}

func writePairs(t *testing.T, dir string) {
	write(t, dir, ".tsv", "source\ttarget\n", [3]int{100, 500, 500}, func(r *rand.Rand) string {
		var a, b []string
		for range 2 + r.IntN(5) {
			i := r.IntN(6)
			a = append(a, strings.Fields("one two three four five six")[i])
			b = append([]string{strings.Fields("un deux trois quatre cinq six")[i]}, b...)
		}
		if r.IntN(4) == 0 {
			a, b = append(a, "Xerxes"+fmt.Sprint(r.IntN(100))), append(b, "Xerxes")
		}
		return strings.Join(a, " ") + "\t" + strings.Join(b, " ") + "\n"
	})
}

func writeSounds(t *testing.T, dir string) {
	r := rand.New(rand.NewPCG(3, 3))
	n := 0
	write(t, dir, ".csv", "audio,text\n", [3]int{12, 24, 24}, func(*rand.Rand) string {
		text, name := pick(r, "ab ba cab"), fmt.Sprintf("%d.wav", n)
		n++
		speechtest.Write(t, filepath.Join(dir, name), speechtest.Whistle(r, text))
		return name + "," + text + "\n"
	})
	if err := os.WriteFile(filepath.Join(dir, "words.txt"), []byte("ab\nba\ncab\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeHours(t *testing.T, dir string) {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	write(t, dir, ".csv", "time,a,b\n", [3]int{1500, 0, 0}, func(r *rand.Rand) string {
		at = at.Add(time.Hour)
		a := 50 + 20*float64(at.Hour()%9) + r.NormFloat64()
		return fmt.Sprintf("%s,%.2f,%.2f\n", at.Format(time.DateTime), a, a/2+3*r.NormFloat64())
	})
}
