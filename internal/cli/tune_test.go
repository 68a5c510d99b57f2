package cli

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/tune"
	"github.com/carousel-ml/carousel/tune/store"
	"github.com/carousel-ml/carousel/tune/trials"
)

// madeUpStudy begins a study of a made-up objective, works on it if work says so, and returns where it is kept.
func madeUpStudy(t testing.TB, o tune.Options, spaceText string, work bool) string {
	t.Helper()
	space, err := tune.ParseSpace("space.yaml", spaceText)
	if err != nil {
		t.Fatal(err)
	}
	address := filepath.Join(t.TempDir(), "study.db")
	kept, err := store.Open(t.Context(), address, true)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	s, err := tune.Open(t.Context(), kept, &tune.Header{Options: o, Subject: "a made-up task"}, space)
	if err != nil {
		t.Fatal(err)
	}
	if !work {
		return address
	}
	err = s.Run(t.Context(), func(ctx context.Context, tr *tune.Trial) ([]float64, error) {
		if tr.Number%11 == 7 {
			return nil, errors.New("training diverged at step 12")
		}
		lr := math.Log10(tr.Float("lr")) + 2.5
		loss := 0.2 + lr*lr/4 + math.Abs(float64(tr.Int("hidden"))-80)/400
		if tr.Choice("cell") == "gru" {
			loss += 0.05
		}
		loss += 0.1 * tr.Float("dropout")
		if len(o.Objectives) > 1 {
			return []float64{loss, float64(tr.Int("hidden")) / 30}, nil
		}
		at := tr.From
		value := func() float64 { return loss + math.Exp(-float64(at)*(0.15+tr.Float("lr")*6)) }
		for at < 27 {
			at++
			if stop, err := tr.Report(ctx, at, at*10, value()); err != nil || stop {
				return []float64{value()}, err
			}
		}
		return []float64{value()}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return address
}

const madeUpSpace = `
lr: {low: 1e-4, high: 1e-1, log: true, default: 1e-2}
hidden: {low: 16, high: 128, step: 16, type: int, default: 64}
cell: {choices: [lstm, gru, rnn], default: lstm}
dropout: {low: 0, high: 0.6, default: 0.1, when: cell, is: [lstm, gru]}
`

// The page of a study has all of its pictures, each trial in each of them, and a card for each; names that need no
// escaping elsewhere do no harm.
func TestStudyPage(t *testing.T) {
	for name, c := range map[string]struct {
		o     tune.Options
		items map[string]int // least number of marks of trials by section
		not   []string       // sections that are left out
	}{
		"one": {
			tune.Options{Trials: 60, Sampler: "random", Seed: 3, Lag: 3, Objectives: []tune.Objective{{Name: "loss"}}, Pruner: "asha", Resource: 27, Resumable: true},
			map[string]int{"History": 55, "Learning curves": 55, "Importance of the parameters": 0, "Parameters and results": 55, "Parameter by parameter": 55 * 3, "Two parameters": 20, "Trials": 65},
			[]string{"Trade-off"},
		},
		"two": {
			tune.Options{Trials: 60, Sampler: "random", Seed: 3, Objectives: []tune.Objective{{Name: "loss"}, {Name: "a<b"}}},
			map[string]int{"Trade-off": 55, "History": 110, "Importance of the parameters": 0, "Parameters and results": 55, "Parameter by parameter": 55 * 3, "Two parameters": 50, "Trials": 65},
			[]string{"Learning curves"},
		},
		"empty": {tune.Options{Trials: 60, Objectives: []tune.Objective{{Name: "loss"}}}, map[string]int{"The study": 0}, []string{"Learning curves", "Trials", "Two parameters"}},
	} {
		t.Run(name, func(t *testing.T) {
			address := madeUpStudy(t, c.o, madeUpSpace, name != "empty")
			file := filepath.Join(t.TempDir(), "page.html")
			var out bytes.Buffer
			if code := run(t.Context(), []string{"tune", "show", "--study", address, "--out", file}, nil, &out, &out); code != exitOK {
				t.Fatalf("exit %d: %s", code, &out)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			html := string(text)
			for section, least := range c.items {
				_, from, has := strings.Cut(html, "<h2>"+section+"</h2>")
				body, _, _ := strings.Cut(from, "</section>")
				if n := strings.Count(body, `class="i i`); !has || n < least {
					t.Errorf("section %q (%v) has %d marks of trials, want %d or more", section, has, n, least)
				}
			}
			for _, section := range c.not {
				if strings.Contains(html, "<h2>"+section+"</h2>") {
					t.Errorf("there is a section %q", section)
				}
			}
			trials := 60
			if name == "empty" {
				trials = 0
			}
			if n := strings.Count(html, `<aside class="card"`); n != trials {
				t.Errorf("%d cards of %d trials", n, trials)
			}
			for _, banned := range []string{"<script", "http:", "https:", "a<b", "NaN"} {
				if strings.Contains(html, banned) {
					t.Errorf("the page has %q", banned)
				}
			}
		})
	}
}

// What a terminal shows of a study at work, and how it is redrawn.
func TestSearchView(t *testing.T) {
	address := madeUpStudy(t, tune.Options{Trials: 12, Sampler: "random", Seed: 3, Objectives: []tune.Objective{{Name: "loss"}}, Pruner: "median", Resource: 27}, madeUpSpace, true)
	s, err := (&app{}).openStudy(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer s.store.Close()
	running := *s.list[11]
	running.State, running.Results, running.Value = tune.Running, nil, nil
	running.Curve = []tune.Point{{At: 1, Values: []float64{3}}, {At: 2, Values: []float64{2}}, {At: 3, Values: []float64{math.NaN()}}, {At: 4, Values: []float64{1}}}
	s.list[11] = &running
	var out bytes.Buffer
	v := &searchView{w: &out, study: s, total: 30, limit: time.Hour, before: 1, told: map[int]string{}, width: func() int { return 60 }}
	lines := v.block(5 * time.Minute)
	for i, want := range []string{
		`^11 of 30 trials: .* complete, .*1 running, 1 failed  2 trials/min  9m30s left$`,
		`^best: trial [0-9]+, loss 0\.[0-9]+  lr [0-9.e-]+, hidden [0-9]+, cell (lstm|gru|rnn)`,
		`^   11  █▅▁▁ +  loss 1\.000 at 4/27  lr `,
	} {
		if i >= len(lines) || !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("line %d: want %s in\n%s", i, want, strings.Join(lines, "\n"))
		}
	}
	v.tell()
	if n := strings.Count(out.String(), "\n"); n != 11 || !strings.Contains(out.String(), "trial 7 failed: training diverged at step 12; lr ") {
		t.Errorf("%d lines:\n%s", n, &out)
	}
	out.Reset()
	if v.tell(); out.Len() > 0 {
		t.Errorf("told again: %s", &out)
	}
	v.show(t.Context())
	v.show(t.Context())
	drawn := strings.Split(out.String(), "\x1b[J")
	if len(drawn) != 2 || !strings.HasSuffix(drawn[0], "\x1b[2A\r") {
		t.Errorf("drawn as %q", drawn)
	}
	for line := range strings.Lines(drawn[1]) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 59 {
			t.Errorf("%d columns of 60: %q", n, line)
		}
	}
}

// endless is a subject whose runs end when they are told to.
type endless struct {
	trials.Subject
	begun func()
}

func (e *endless) Try(ctx context.Context, _ *trials.Run) (*trials.Score, error) {
	e.begun()
	<-ctx.Done()
	return nil, ctx.Err()
}

// What follows the trials is left out where --time leaves too little time for it, and people are told how long it takes.
func TestRepeatsInTime(t *testing.T) {
	address := madeUpStudy(t, tune.Options{Trials: 12, Sampler: "random", Seed: 3, Objectives: []tune.Objective{{Name: "loss"}}}, madeUpSpace, true)
	s, err := (&app{}).openStudy(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer s.store.Close()
	for _, c := range []struct {
		limit, passed time.Duration
		want          string // "": they are computed
	}{
		{0, 100 * time.Hour, ""},
		{time.Hour, 89 * time.Minute, ""},
		{time.Hour, 90 * time.Minute, "are not computed with 3 further seeds each, which would take about 1s more: with --time 1h0m0s all"},
		{time.Hour, 3 * time.Hour, "are not computed with 3 further seeds each"},
	} {
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		subject := &endless{begun: cancel}
		err := (&app{stderr: &out}).repeat(ctx, &search{o: &searchOptions{Time: c.limit}}, s, subject, &trials.Options{}, time.Now().Add(-c.passed))
		cancel()
		if began := errors.Is(err, context.Canceled); began != (c.want == "") || !began && err != nil {
			t.Error(c, err)
		}
		if c.want == "" {
			c.want = "are now computed with 3 further seeds each, which takes about 1s"
		}
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("of %v, after %v: %s", c.limit, c.passed, &out)
		}
	}
	for d, want := range map[time.Duration]string{0: "1s", 90 * time.Second: "1m30s", 44*time.Minute + 40*time.Second: "45m", 70 * time.Minute: "1h10m"} {
		if got := roughly(d); got != want {
			t.Errorf("%v is roughly %s, not %s", d, got, want)
		}
	}
}

// A verdict without repeats has no table of them.
func TestFinalistTable(t *testing.T) {
	s := &openedStudy{Study: &tune.Study{Options: tune.Options{Objectives: []tune.Objective{{Name: "loss"}}}}}
	for _, c := range []struct {
		verdict *trials.Verdict
		rows    int
	}{
		{nil, 0},
		{&trials.Verdict{Finalists: []trials.Finalist{{First: 1}, {Trial: 1, First: 2}}}, 0},
		{&trials.Verdict{Finalists: []trials.Finalist{{First: 1, Values: []float64{2}, Mean: 2}, {Trial: 1, First: 2, Failed: 1}}}, 2},
	} {
		s.verdict = c.verdict
		table := s.finalistTable()
		if table == nil && c.rows > 0 || table != nil && len(table.Rows) != c.rows {
			t.Errorf("%+v: %+v", c.verdict, table)
		}
	}
}

// A flag that a task and the search share goes by its value.
func TestTwoFlags(t *testing.T) {
	root := (&app{kinds: carousel.Tasks}).rootCommand()
	c, _, err := root.Find([]string{"tune", "forecast"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := c.ParseFlags([]string{"--time", "date", "--time", "90m", "--from", dir, "--from", "postgres://a/b"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{"time": {"date", "90m"}, "from": {dir, "postgres://a/b"}} {
		f := c.Flags().Lookup(name).Value.(*twoFlags)
		if f.task.String() != want[0] || f.search.String() != want[1] {
			t.Errorf("--%s: %s and %s", name, f.task, f.search)
		}
	}
}

func TestResumeCommandHasNoPassword(t *testing.T) {
	for _, args := range [][]string{{"tune", "--study", "postgres://tuner:secret@db/s"}, {"tune", "--study=postgres://tuner:secret@db/s", "--set", "a=b=c"}} {
		a := &app{args: args}
		if got := a.resumeCommand(); strings.Contains(got, "secret") || !strings.Contains(got, "postgres://tuner@db/s") {
			t.Errorf("%q: got %s", args, got)
		}
	}
}

func TestTryOut(t *testing.T) {
	for sampler, want := range map[string]string{"tpe": "none keeps its constraints", "cmaes": "none keeps its constraints", "grid": "no combination of the grid keeps the constraints"} {
		space, err := tune.ParseSpace("space.yaml", "n: {low: 1, high: 9, type: int, default: 3}\nconstraints: [\"n <= 0\"]")
		if err != nil {
			t.Fatal(err)
		}
		var wrong *misuse
		if err := tryOut(t.Context(), space, tune.Options{Sampler: sampler}); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", sampler, err)
		}
	}
}

// A recipe of a study has the settings of all its trials, and is quoted where YAML needs it.
func TestRecipeOfStudy(t *testing.T) {
	s := &openedStudy{Study: &tune.Study{Space: &tune.Space{Params: []*tune.Param{{Name: "lr"}, {Name: "pool", Type: tune.Choice}}}}, header: &tune.Header{Subject: "classify\nepochs: 3\nlr: 0.1\ntext: \"a b\"\n"}}
	r := &tune.Record{Values: tune.Values{"lr": 0.5, "pool": "- max"}}
	if got, want := s.recipe(r), "epochs: 3\ntext: \"a b\"\nlr: 0.5\npool: \"- max\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.header.Subject = "command\nrun: {lr}"
	if got, want := s.recipe(r), "lr: 0.5\npool: \"- max\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
