package tune

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func testSpace(t testing.TB) *Space {
	s, err := ParseSpace("space.yaml", `
lr: {low: 1e-4, high: 1e-1, log: true, default: 1e-2}
hidden: {low: 16, high: 128, step: 16, type: int, default: 64}
cell: {choices: [lstm, gru, rnn], default: lstm}
forget: {low: 0, high: 1, default: 0.5, when: cell, is: [lstm]}
`)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// loss is a made-up loss of a trial after at of 27 units, with an order that changes on the way.
func loss(v Values, at int) float64 {
	lr := math.Log10(v["lr"].(float64)) + 2.5
	x := lr*lr + math.Abs(float64(v["hidden"].(int))-80)/100
	if v["cell"] == "lstm" {
		x += v["forget"].(float64) / 10
	}
	return x + math.Exp(-float64(at)*v["lr"].(float64)*20)
}

// work takes part in a study as a worker does.
func work(ctx context.Context, s *Study, delay func() time.Duration) error {
	return s.Run(ctx, func(ctx context.Context, t *Trial) ([]float64, error) {
		for at := t.From + 1; at <= 27; at++ {
			x := loss(t.Values, at)
			stop, err := t.Report(ctx, at, 10*at, x)
			if err != nil {
				return nil, err
			}
			if stop {
				return []float64{x}, nil
			}
		}
		time.Sleep(delay())
		if t.Number%7 == 5 {
			return nil, errors.New("out of luck")
		}
		return []float64{loss(t.Values, 27)}, nil
	})
}

// The trials of a study do not depend on how many workers there are, nor on their speed.
func TestAnyWorkers(t *testing.T) {
	sameForAnyWorkers(t, []Options{
		{Trials: 40, Sampler: "random"},
		{Trials: 40, Sampler: "random", Pruner: "asha", Resource: 27, Resumable: true},
		{Trials: 40, Sampler: "random", Pruner: "asha", Resource: 27},
		{Trials: 40, Sampler: "random", Pruner: "hyperband", Resource: 27, Resumable: true},
		{Trials: 40, Sampler: "random", Pruner: "median", Resource: 27},
		{Trials: 40, Sampler: "random", Pruner: "percentile", Resource: 27},
		{Trials: 40, Sampler: "random", Pruner: "patient", Resource: 27},
	})
}

// sameForAnyWorkers fails if a study of 40 trials depends on the number of workers.
func sameForAnyWorkers(t *testing.T, list []Options) {
	for _, o := range list {
		o.Lag, o.Seed = 7, 3
		t.Run(fmt.Sprintf("%s/%s/%v", o.Sampler, o.Pruner, o.Resumable), func(t *testing.T) {
			t.Parallel()
			all := sameTrials(t, o, testSpace(t).String(), func(ctx context.Context, s *Study, r *rand.Rand) error {
				return work(ctx, s, func() time.Duration { return time.Duration(r.IntN(2000)) * time.Microsecond })
			})
			states := statesOf(all)
			if len(all) != 40 || states[Complete] == 0 || states[Running] > 0 || o.Pruner != "none" && o.Pruner != "" && states[Complete] > 35 {
				t.Errorf("%v of %d trials", states, len(all))
			}
		})
	}
}

// sameTrials returns the trials of a study, and fails if they depend on the number of workers.
func sameTrials(t *testing.T, o Options, space string, work func(ctx context.Context, s *Study, r *rand.Rand) error) (trials []*Record) {
	var first string
	for _, workers := range []int{1, 2, 4, 8, 11} {
		store := NewMemory()
		open := func() *Study {
			parsed, err := ParseSpace("space.yaml", space)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), store, &Header{Options: o}, parsed)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		var wg sync.WaitGroup
		for w := range workers {
			s, r := open(), rand.New(rand.NewPCG(uint64(w), 5))
			wg.Go(func() {
				if err := work(t.Context(), s, r); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		list, err := open().Trials(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			r.Seconds = 0
		}
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first, trials = string(text), list
		} else if string(text) != first {
			t.Errorf("%d workers made other trials:\n%s\n%s", workers, text, first)
		}
	}
	return trials
}

func statesOf(list []*Record) map[State]int {
	states := map[State]int{}
	for _, r := range list {
		states[r.State]++
	}
	return states
}

// Ask does not wait, and says why it cannot give a trial.
func TestAskTell(t *testing.T) {
	s, err := New(testSpace(t), Options{Trials: 3, Sampler: "random", Lag: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := s.Enqueue(ctx, Values{"cell": "gru", "hidden": 32}); err != nil {
		t.Fatal(err)
	}
	if err := s.Enqueue(ctx, Values{"hidden": 33.5}); err == nil {
		t.Error("a fraction was enqueued for a whole number")
	}
	a, err := s.Ask(ctx)
	if err != nil || a.Choice("cell") != "gru" || a.Int("hidden") != 32 || a.Float("lr") != 1e-2 {
		t.Fatal(a.Values, err)
	}
	b, err := s.Ask(ctx)
	if err != nil || b.Values["cell"] != "lstm" {
		t.Fatal(b, err)
	}
	if _, err := s.Ask(ctx); !errors.Is(err, ErrWait) {
		t.Fatal(err)
	}
	if err := s.Tell(ctx, a, 1, 2); err == nil {
		t.Error("two objectives were taken for one")
	}
	if err := s.Tell(ctx, a, 2); err != nil {
		t.Fatal(err)
	}
	if err := s.Tell(ctx, a, 1); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	c, err := s.Ask(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tell(ctx, b, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Tell(ctx, c, math.Inf(1)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err = s.Ask(ctx); err == nil {
			t.Fatal("a fourth trial of three")
		}
	}
	if !errors.Is(err, ErrDone) {
		t.Fatal(err)
	}
	list, err := s.Trials(ctx)
	if err != nil || len(list) != 3 || list[2].State != Failed || s.Best(list)[0].Number != 1 {
		t.Fatal(list, err)
	}
}

// A worker that is lost loses its piece, and cannot write any more.
func TestLost(t *testing.T) {
	store := NewMemory()
	open := func() *Study {
		s, err := Open(t.Context(), store, &Header{Options: Options{Trials: 2, Sampler: "random", Lag: 1}}, testSpace(t))
		if err != nil {
			t.Fatal(err)
		}
		s.lease = 0
		return s
	}
	first, second := open(), open()
	a, err := first.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Ask(t.Context())
	if err != nil || b.Number != a.Number || b.Piece.Epoch != 2 || first.Space.text(a.Values) != first.Space.text(b.Values) {
		t.Fatal(b, err)
	}
	if _, err := a.Report(t.Context(), 1, 1, 5); !errors.Is(err, ErrFenced) {
		t.Error(err)
	}
	if err := first.Tell(t.Context(), a, 5); !errors.Is(err, ErrFenced) {
		t.Error(err)
	}
	if err := second.Tell(t.Context(), b, 6); err != nil {
		t.Error(err)
	}
}

// A study is continued only by the same one, or a longer one.
func TestDifferent(t *testing.T) {
	store := NewMemory()
	open := func(h Header, space string) error {
		s, err := ParseSpace("space.yaml", space)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(t.Context(), store, &h, s)
		return err
	}
	base := Header{Options: Options{Trials: 2, Sampler: "random"}, Data: "1"}
	if err := open(base, "x: {low: 0, high: 1}"); err != nil {
		t.Fatal(err)
	}
	longer, other, seeded := base, base, base
	longer.Options.Trials, other.Data, seeded.Options.Seed = 5, "2", 1
	if err := open(longer, "x: {low: 0, high: 1}"); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		"the study was begun with data of checksum 1, not 2; continue it with that, or begin another one":                                open(other, "x: {low: 0, high: 1}"),
		`the study was begun with the option seed 0, not seed 1; continue it with that, or begin another one`:                            open(seeded, "x: {low: 0, high: 1}"),
		"the study was begun with the space x: {low: 0, high: 1}, not x: {low: 0, high: 2}; continue it with that, or begin another one": open(base, "x: {low: 0, high: 2}"),
	} {
		var d *DifferentError
		if !errors.As(err, &d) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestSpace(t *testing.T) {
	s := testSpace(t)
	again, err := ParseSpace("space.yaml", s.String())
	if err != nil || again.String() != s.String() {
		t.Fatal(again, err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	counts := map[string]int{}
	for range 8000 {
		v := uniform{}.sample(&knowledge{space: s, rand: r})
		if _, has := v["forget"]; has != (v["cell"] == "lstm") {
			t.Fatal(v)
		}
		for _, p := range s.Params {
			one, has := v[p.Name]
			if !has {
				continue
			}
			if back := p.At(p.Unit(one)); p.Text(back) != p.Text(one) && math.Abs(asFloat(back)/asFloat(one)-1) > 1e-12 {
				t.Fatalf("%s: %v became %v", p.Name, one, back)
			}
			if _, err := p.Parse(p.Text(one)); err != nil {
				t.Fatal(err)
			}
			if p.Count() > 0 {
				counts[p.Name+p.Text(one)]++
			}
		}
	}
	for name, n := range counts {
		if want := 8000 / map[bool]int{true: 8, false: 3}[name[0] == 'h']; math.Abs(float64(n-want)) > 5*math.Sqrt(float64(want)) {
			t.Errorf("%s was drawn %d times, expected about %d", name, n, want)
		}
	}
	for text, want := range map[string]string{
		"x: {low: 2, high: 1}":                                  "space.yaml:1: x: the range 2 to 1 is empty: expected low <= high",
		"x: {low: 0, high: 1, log: true}":                       "space.yaml:1: x: a logarithmic range begins above 0, not at 0",
		"x: {low: 0}":                                           "space.yaml:1: x: expected low and high, or choices",
		"a: {choices: [b]}\nx: {lo: 0, high: 1}":                `space.yaml:2: x: unknown field "lo"; did you mean low?`,
		"x: {low: 0, high: 1, when: y, is: [b]}":                "space.yaml:1: x: its condition is on y, which must be a parameter before it",
		"x: {low: 0, high: 1, default: 2}":                      "space.yaml:1: x: default: x: expected a number from 0 to 1, got 2",
		"x: {low: 0, high: 1}\nconstraints: [\"x < 1\"]":        `space.yaml:2: constraint "x < 1": expected <= or >= between two expressions`,
		"x: {low: 0, high: 1}\nconstraints: [\"x + y + z<=1\"]": `space.yaml:2: constraint "x + y + z<=1": neither y nor z is a parameter; one measure is allowed`,
	} {
		if _, err := ParseSpace("space.yaml", text); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func TestConstraint(t *testing.T) {
	c, err := ParseConstraint("2 * (hidden - 1) >= -latency / 4 + x")
	if err != nil {
		t.Fatal(err)
	}
	v := Values{"hidden": 3, "x": 0.5}
	if got := c.Excess(v, map[string]float64{"latency": -16}); got != 0.5 {
		t.Error(got)
	}
	if got := c.Excess(v, nil); got != 0 {
		t.Error(got)
	}
	s, err := ParseSpace("s.yaml", "a: {low: 1, high: 64, type: int}\nb: {low: 1, high: 64, type: int}\nconstraints: [\"a * b <= 64\", \"time <= 5\"]")
	if err != nil {
		t.Fatal(err)
	}
	study, err := New(s, Options{Trials: 60, Sampler: "random"})
	if err != nil {
		t.Fatal(err)
	}
	err = study.Run(t.Context(), func(_ context.Context, trial *Trial) ([]float64, error) {
		if trial.Int("a")*trial.Int("b") > 64 {
			t.Error(trial.Values)
		}
		return []float64{float64(trial.Int("a"))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	one, err := New(s, Options{Trials: 2, Sampler: "random"})
	if err != nil {
		t.Fatal(err)
	}
	for _, measured := range []float64{6, 5} {
		trial, err := one.Ask(t.Context())
		if err == nil {
			err = trial.Tell(t.Context(), map[string]float64{"time": measured}, -measured)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	list, err := one.Trials(t.Context())
	if best := one.Best(list); err != nil || len(best) != 1 || best[0].Number != 1 || !slices.Equal(list[0].Broken, []string{"time <= 5"}) {
		t.Error(best, err)
	}
}

// What a study keeps as its space must be read again, whatever names and choices are.
func TestSpaceWithOddNamesIsReadAgain(t *testing.T) {
	odd := []string{"", "null", "yes", "12", "-3", "1e3", "0x1F", "a b", "q: {", "<b>", "a\nb", "\x01", "é\u2028\u00a0", "'", `"\`, "#x", "- a", "---", "&a", "*a", "%", "😀", "\ufeff", "\U000e0001", "\x7f\u0085"}
	s := &Space{}
	for _, name := range odd {
		if name != "" {
			s.Params = append(s.Params, &Param{Name: name, Type: Choice, Choices: odd, Default: ""})
		}
	}
	s.Params = append(s.Params, &Param{Name: "x", High: 1, When: "q: {", Equals: []string{"- a", ""}})
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	again, err := ParseSpace("space.yaml", s.String())
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range again.Params {
		if p.Line != i+1 {
			t.Errorf("parameter %d is of line %d", i, p.Line)
		}
		p.Line = 0
	}
	if !reflect.DeepEqual(s, again) {
		t.Errorf("wrote\n%s, read\n%s", s, again)
	}
}

// A study that is continued with more trials is one that had as many from the beginning, where no trial waits for others.
func TestMoreTrialsLater(t *testing.T) {
	space := &Space{Params: []*Param{{Name: "x", High: 1}, {Name: "y", High: 1}}}
	f := func(ctx context.Context, tr *Trial) ([]float64, error) {
		for at := 1; ; at++ {
			x := math.Abs(tr.Float("x")-0.3) + tr.Float("y")/float64(at)
			if stop, err := tr.Report(ctx, at, 0, x); err != nil || stop || at == 9 {
				return []float64{x}, err
			}
		}
	}
	trials := func(pruner string, resumable bool, counts ...int) (list []string) {
		store := NewMemory()
		for _, n := range counts {
			s, err := Open(t.Context(), store, &Header{Options: Options{Trials: n, Lag: 5, Pruner: pruner, Resource: 9, Resumable: resumable}}, space)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Run(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			records, err := s.Trials(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list = nil
			for _, r := range records {
				list = append(list, fmt.Sprint(r.Number, r.Values, r.State, r.Results, r.Origin))
			}
		}
		return list
	}
	for _, pruner := range []string{"none", "median", "asha"} {
		if a, b := trials(pruner, false, 30), trials(pruner, false, 3, 14, 30); !slices.Equal(a, b) {
			t.Errorf("%s: at once\n%s\nbit by bit\n%s", pruner, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
	if list := trials("asha", true, 12, 30); len(list) != 30 {
		t.Error(list)
	}
}

func TestFailureIsOneLine(t *testing.T) {
	s, err := New(&Space{Params: []*Param{{Name: "x", High: 1}}}, Options{Trials: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), func(context.Context, *Trial) ([]float64, error) { return nil, errors.New("a\n\x1b[31mb\u009b") }); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Trials(t.Context()); err != nil || list[0].Error != "a  [31mb " {
		t.Errorf("%q, %v", list[0].Error, err)
	}
}

// What a constraint is broken by is a number, whatever its sides are.
func TestExcessIsANumber(t *testing.T) {
	space, err := ParseSpace("space.yaml", "c: {choices: [a, b]}\nx: {low: 0, high: 1, when: c, is: [a]}\nconstraints: [\"latency <= 10 * x\", \"latency >= 1 / x\"]")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(space, Options{})
	if err != nil {
		t.Fatal(err)
	}
	latency := map[string]float64{"latency": 6}
	if got := s.excess(Values{"c": "b"}, latency); got != 0 {
		t.Errorf("without x: %v", got)
	}
	if got := s.excess(Values{"c": "a", "x": 0.5}, nil); got != 0 {
		t.Errorf("without a measure: %v", got)
	}
	if got := s.excess(Values{"c": "a", "x": 0.5}, latency); got != 0.2 {
		t.Errorf("got %v", got)
	}
	if got := s.excess(Values{"c": "a", "x": 0.0}, latency); !math.IsInf(got, 1) {
		t.Errorf("divided by 0: %v", got)
	}
}

func TestSpacesThatMakeNoSense(t *testing.T) {
	for text, want := range map[string]string{
		"x: {low: 0, high: 1, step: inf}":          "step +Inf",
		"x: {low: 0, high: 1, step: 1e-300}":       "step 1e-300: it is too small",
		"x: {low: -1.7e308, high: 1.7e308}":        "too wide",
		"x: {low: 0, high: 1, default: [0.5]}":     "default: expected one value",
		"x: {low: 0, high: 1, default: {a: 0.5}}":  "default: expected one value",
		"x: {low: 0, high: 1, default: \"\"}":      "expected a number",
		"x: {low: 0, high: 1, when: [y], is: [1]}": "when: expected the name",
		"x: {low: 0, high: 1, colour: red}":        `unknown field "colour"; it may have low`,
	} {
		_, err := ParseSpace("space.yaml", text)
		if err == nil || !strings.HasPrefix(err.Error(), "space.yaml:1: x: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", text, err, want)
		}
	}
}

// A default is one of the values of a grid, to the bit, so that it is not tried twice.
func TestGridHasTheDefault(t *testing.T) {
	p := &Param{Name: "x", Low: 0.05, High: 0.45, Step: 0.1}
	for i := range p.Count() {
		if u := (float64(i) + 0.5) / float64(p.Count()); p.nth(i) != p.At(u) {
			t.Errorf("value %d: %v, by its share %v", i, p.nth(i), p.At(u))
		}
	}
	if got := p.nth(1); got != 0.15 {
		t.Errorf("got %v", got)
	}
	big := &Param{Name: "n", Type: Int, Low: 0, High: 1 << 53}
	if got := big.nth(1<<52 + 1); got != 1<<52+1 {
		t.Errorf("got %v", got)
	}
}
