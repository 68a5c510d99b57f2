package trials

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tune"
)

const (
	// Finalists is the number of the best trials that are repeated, besides the defaults.
	Finalists = 3
	// Seeds is the number of further seeds with which each is trained.
	Seeds = 3
)

// finalists returns the numbers of the best trials, the best first, and of the defaults, -1 if they have failed. Where a pruner
// has left too few that are complete, those that came furthest stand in, as all are trained to the end with further
// seeds. Of several objectives the best are those of the front with the best first one.
func finalists(study *tune.Study, list []*tune.Record) (best []int, defaults int) {
	good := study.Best(list)
	for _, r := range list {
		if (r.State == tune.Paused || r.State == tune.Pruned) && len(r.Broken) == 0 && r.Value != nil {
			good = append(good, r)
		}
	}
	came := func(r *tune.Record) int {
		if r.State == tune.Complete || len(r.Curve) == 0 {
			return math.MaxInt
		}
		return r.Curve[len(r.Curve)-1].At
	}
	slices.SortStableFunc(good, func(a, b *tune.Record) int {
		return cmp.Or(cmp.Compare(came(b), came(a)), cmp.Compare(study.Losses(a)[0], study.Losses(b)[0]))
	})
	for _, r := range good[:min(Finalists, len(good))] {
		best = append(best, r.Number)
	}
	defaults = defaultsOf(study.Space, list)
	if defaults >= 0 && (list[defaults].Value == nil || len(list[defaults].Broken) > 0) {
		defaults = -1
	}
	return best, defaults
}

// repeated is the text of a run with another seed: who does it and until when, and then its result.
type repeated struct {
	Worker string    `json:"worker"`
	Until  time.Time `json:"until,omitzero"` // when another worker may take it
	Done   bool      `json:"done,omitempty"`
	Values []float64 `json:"values,omitempty"`
	Broken []string  `json:"broken,omitempty"` // measured constraints that it does not keep
	Error  string    `json:"error,omitempty"`
}

// repeatLease is how long a repeat whose worker is lost stays with it. It is by the clocks of the workers' machines: where
// they differ by more, a repeat is computed twice, and the first result counts.
const repeatLease = time.Minute

func repeatName(trial, seed int) string { return fmt.Sprintf("repeat/%d/%d", trial, seed) }

// Repeat trains the best [Finalists] trials and the defaults with [Seeds] further seeds each. They are no trials: they decide on
// the winner, and no trial follows from them. All processes that call it share the runs, and what was done before, also in
// part, is not done again. The errors are those of [Work].
func Repeat(ctx context.Context, study *tune.Study, s Subject, o *Options) error {
	list, err := study.Trials(ctx)
	if err != nil {
		return err
	}
	best, defaults := finalists(study, list)
	if defaults >= 0 && !slices.Contains(best, defaults) {
		best = append(best, defaults)
	}
	var todo []*repeat
	for seed := 1; seed <= Seeds; seed++ {
		for _, n := range best {
			todo = append(todo, &repeat{study: study, trial: list[n], seed: seed})
		}
	}
	c, end := newCrew(study, s, o)
	defer end()
	return c.each(ctx, func(ctx context.Context) error {
		for {
			left := false
			for _, r := range todo {
				state, err := r.take(ctx)
				if err != nil {
					return err
				}
				if state == taken {
					if err := c.repeat(ctx, r); err != nil {
						return err
					}
				}
				left = left || state == others
			}
			if !left {
				return nil
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Second):
			}
		}
	})
}

// repeat is a run of a trial with another seed.
type repeat struct {
	study *tune.Study
	trial *tune.Record
	seed  int

	mu   sync.Mutex
	text string // as this worker wrote it last
}

type claim int

const (
	finished claim = iota
	others         // another worker has it
	taken          // this one
)

func (r *repeat) name() string           { return repeatName(r.trial.Number, r.seed) }
func (r *repeat) checkpointName() string { return "checkpoint/" + r.name() }

// take takes the run if nobody has it.
func (r *repeat) take(ctx context.Context) (claim, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, err := r.study.Store().Get(ctx, r.name())
	if err != nil {
		return 0, err
	}
	var state repeated
	if old != "" {
		if err := json.Unmarshal([]byte(old), &state); err != nil {
			return 0, fmt.Errorf("%s: %w", r.name(), err)
		}
	}
	switch {
	case state.Done:
		return finished, nil
	case time.Now().Before(state.Until):
		return others, nil
	}
	r.text = old
	err = r.write(ctx, &repeated{Until: time.Now().Add(repeatLease)})
	if errors.Is(err, tune.ErrTaken) {
		return others, nil
	}
	return taken, err
}

// write replaces what this worker wrote last. r.mu is held.
func (r *repeat) write(ctx context.Context, state *repeated) error {
	host, _ := os.Hostname()
	state.Worker = fmt.Sprintf("%s/%d", host, os.Getpid())
	text, err := json.Marshal(state)
	if err == nil {
		err = r.study.Store().Set(ctx, r.name(), r.text, string(text))
	}
	if err == nil {
		r.text = string(text)
	}
	return err
}

// set is write, in the hands of a worker.
func (r *repeat) set(ctx context.Context, state *repeated) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.write(ctx, state)
}

// hold renews the lease until stop is called; the context is cancelled if another worker has taken the run.
func (r *repeat) hold(ctx context.Context) (held context.Context, stop func()) {
	held, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(repeatLease / 4)
		defer tick.Stop()
		for {
			select {
			case <-held.Done():
				return
			case <-tick.C:
				if err := r.set(held, &repeated{Until: time.Now().Add(repeatLease)}); errors.Is(err, tune.ErrTaken) {
					cancel(tune.ErrFenced)
				}
			}
		}
	}()
	return held, func() {
		cancel(context.Canceled)
		<-done
	}
}

// repeat does a run that was taken.
func (c *crew) repeat(ctx context.Context, r *repeat) error {
	held, release := r.hold(ctx)
	defer release()
	always := context.WithoutCancel(ctx)
	store := c.study.Store()
	packed, err := store.Get(ctx, r.checkpointName())
	if err != nil {
		return err
	}
	checkpoint, err := base64.StdEncoding.DecodeString(packed)
	if err != nil {
		return fmt.Errorf("%s: %w", r.checkpointName(), err)
	}
	if packed == "" {
		checkpoint = nil
	}
	score, err := c.run(held, &Run{
		Space: c.study.Space, Trial: r.trial.Number, Values: r.trial.Values, Seed: uint64(r.seed), Checkpoint: checkpoint,
		Resume: func(int) bool { return false },
		Report: func(int, int, []float64) (bool, error) { return false, nil },
		Save: func(checkpoint []byte) error {
			text := base64.StdEncoding.EncodeToString(checkpoint)
			err := store.Set(always, r.checkpointName(), packed, text)
			if errors.Is(err, tune.ErrTaken) {
				return tune.ErrFenced
			}
			packed = text
			return final(err)
		},
	})
	release()
	result := &repeated{Done: true}
	var end *fatal
	switch {
	case errors.Is(context.Cause(held), tune.ErrFenced) || errors.Is(err, tune.ErrFenced):
		return nil
	case errors.As(err, &end):
		return end.error
	case err != nil && ctx.Err() != nil:
		if back := r.set(always, &repeated{}); back != nil && !errors.Is(back, tune.ErrTaken) {
			return back
		}
		return context.Cause(ctx)
	case err != nil:
		result.Error = err.Error()
		c.tell("trial %d with another seed failed: %v", r.trial.Number, err)
	case math.IsNaN(score.Values[0]) || math.IsInf(score.Values[0], 0):
		result.Error = "its result is not a finite number"
	default:
		result.Values = score.Values
		for _, one := range c.study.Space.Constraints {
			if one.Measured() != "" && one.Excess(r.trial.Values, score.Measures) > 0 {
				result.Broken = append(result.Broken, one.Text)
			}
		}
	}
	err = r.set(always, result)
	if err == nil {
		err = store.Set(always, r.checkpointName(), packed, "")
	}
	if errors.Is(err, tune.ErrTaken) {
		return nil
	}
	return err
}

// A Verdict compares the best trials with each other and with the defaults, by runs with seeds that played no part in
// choosing them: the best of many is best by luck too, so its own result says too much.
type Verdict struct {
	Winner    int        `json:"winner"`    // number of the trial with the best mean
	Defaults  int        `json:"defaults"`  // number of the trial of the defaults; -1 if they have no result
	Objective string     `json:"objective"` // that is compared
	Finalists []Finalist `json:"finalists"` // by mean, the best first; the defaults are among them
	Gain      float64    `json:"gain"`      // by how much the winner's mean is better than the defaults', 0 or more
	Within    float64    `json:"within"`    // half of the 95 % interval of Gain, by Welch's t
	Beats     bool       `json:"beats"`     // whether Gain is above Within
	Text      string     `json:"text"`      // the same in a sentence
}

// A Finalist is a trial with its results by seed.
type Finalist struct {
	Trial  int         `json:"trial"`            // its number
	Params tune.Values `json:"params"`           // its parameters by name
	First  float64     `json:"first"`            // result of the trial itself, by which it was chosen
	Values []float64   `json:"values,omitempty"` // with further seeds
	Mean   float64     `json:"mean"`             // of Values; without any, First
	SD     float64     `json:"sd"`               // standard deviation of Values; 0 of less than two
	Failed int         `json:"failed,omitempty"` // runs with further seeds that had no result
	Broken []string    `json:"broken,omitempty"` // measured constraints that at least one run did not keep, so that it does not win
}

// A NoWinnerError says why a study has no winner.
type NoWinnerError string

func (e NoWinnerError) Error() string { return string(e) }

// Judge returns the verdict on a study as far as its best trials have been repeated. Where no trial has a result that keeps
// the constraints it is a NoWinnerError.
func Judge(ctx context.Context, study *tune.Study) (*Verdict, error) {
	list, err := study.Trials(ctx)
	if err != nil {
		return nil, err
	}
	best, defaults := finalists(study, list)
	if len(best) == 0 {
		return nil, NoWinnerError(fmt.Sprintf("of %s none has a result that keeps the constraints; look at why they failed, or widen the space", report.Plural(len(list), "trial")))
	}
	if defaults >= 0 && !slices.Contains(best, defaults) {
		best = append(best, defaults)
	}
	o := study.Options.Objectives[0]
	v := &Verdict{Defaults: defaults, Objective: o.Name}
	for _, n := range best {
		f := Finalist{Trial: n, Params: list[n].Values, First: list[n].Results[0]}
		for seed := 1; seed <= Seeds; seed++ {
			text, err := study.Store().Get(ctx, repeatName(n, seed))
			if err != nil {
				return nil, err
			}
			var r repeated
			if text != "" {
				if err := json.Unmarshal([]byte(text), &r); err != nil {
					return nil, fmt.Errorf("%s: %w", repeatName(n, seed), err)
				}
			}
			switch {
			case r.Error != "":
				f.Failed++
			case r.Done:
				f.Values = append(f.Values, r.Values[0])
			}
			for _, text := range r.Broken {
				if !slices.Contains(f.Broken, text) {
					f.Broken = append(f.Broken, text)
				}
			}
		}
		if f.Mean = f.First; len(f.Values) > 0 {
			f.Mean = stat.Mean(f.Values, nil)
		}
		if len(f.Values) > 1 {
			f.SD = stat.StdDev(f.Values, nil)
		}
		v.Finalists = append(v.Finalists, f)
	}
	order := func(a, b Finalist) int {
		if o.Maximize {
			a, b = b, a
		}
		return cmp.Compare(a.Mean, b.Mean)
	}
	slices.SortStableFunc(v.Finalists, func(a, b Finalist) int {
		// What was repeated is known better, and the defaults need no change.
		return cmp.Or(compareBool(len(a.Broken) > 0, len(b.Broken) > 0), cmp.Compare(len(b.Values), len(a.Values)), order(a, b), compareBool(b.Trial == defaults, a.Trial == defaults))
	})
	if first := v.Finalists[0]; len(first.Broken) > 0 {
		return nil, NoWinnerError(fmt.Sprintf("none of the best trials keeps all constraints when it is trained to the end; trial %d breaks %s; loosen the bound or narrow the space", first.Trial, first.Broken[0]))
	}
	if at := slices.IndexFunc(v.Finalists, func(f Finalist) bool { return f.Trial == defaults }); at > 0 {
		switch d := v.Finalists[at]; {
		case len(d.Broken) > 0:
			v.Defaults = -1 // they could not be used
		case order(v.Finalists[0], d) >= 0: // which has more runs with a result, but is no better
			v.Finalists = slices.Insert(slices.Delete(v.Finalists, at, at+1), 0, d)
		}
	}
	v.Winner = v.Finalists[0].Trial
	v.compare()
	return v, nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// compare fills in what is said of the winner.
func (v *Verdict) compare() {
	w := v.Finalists[0]
	at := slices.IndexFunc(v.Finalists, func(f Finalist) bool { return f.Trial == v.Defaults })
	if at < 0 {
		v.Text = fmt.Sprintf("trial %d is the best: %s %s; the defaults have no result to compare it with", w.Trial, v.Objective, report.Number(w.Mean))
		return
	}
	d := v.Finalists[at]
	if at == 0 {
		v.Text = fmt.Sprintf("no trial beats the defaults (trial %d): %s %s", d.Trial, v.Objective, report.Number(d.Mean))
		return
	}
	v.Gain = math.Abs(w.Mean - d.Mean)
	means := fmt.Sprintf("%s %s against %s", v.Objective, report.Number(w.Mean), report.Number(d.Mean))
	by := func(x float64) string { return report.Number(x) }
	unit := ""
	if w.Mean*d.Mean > 0 { // otherwise shares say nothing
		by = func(x float64) string { return report.Number(100 * x / math.Abs(d.Mean)) }
		unit = " %"
	}
	n := min(len(w.Values), len(d.Values))
	if n < 2 {
		v.Text = fmt.Sprintf("trial %d is better than the defaults by %s%s (%s), and the seeds' noise is not known: too few runs with other seeds have a result", w.Trial, by(v.Gain), unit, means)
		return
	}
	v.Within = welch(w, d)
	v.Beats = v.Gain > v.Within
	noise := fmt.Sprintf("± %s (95 %%)", by(v.Within))
	if v.Within == 0 {
		noise = "(which no seed changes)"
	}
	format := "trial %d beats the defaults by %s%s %s: %s, means of %d seeds"
	if !v.Beats {
		format = "trial %d does not beat the defaults by more than the seeds' noise: it is better by %s%s %s: %s, means of %d seeds"
	}
	v.Text = fmt.Sprintf(format, w.Trial, by(v.Gain), unit, noise, means, n)
}

// welch returns half of the 95 % interval of the difference of two means, by Welch's t test (1947).
func welch(a, b Finalist) float64 {
	n, m := float64(len(a.Values)), float64(len(b.Values))
	p, q := a.SD*a.SD/n, b.SD*b.SD/m
	if p+q == 0 {
		return 0
	}
	df := (p + q) * (p + q) / (p*p/(n-1) + q*q/(m-1))
	return math.Sqrt(p+q) * distuv.StudentsT{Sigma: 1, Nu: df}.Quantile(0.975)
}

// From enqueues the best complete trials of an older study, at most most of them, the best first, of whose parameters the ones that
// this study's space has are in its ranges, and returns how many. Those in its queue stay there once. Other parameters have their defaults. They are tried anew: results of
// other data, settings or versions are no observations of this study.
func From(ctx context.Context, older, study *tune.Study, most int) (n int, err error) {
	list, err := older.Trials(ctx)
	if err != nil {
		return 0, err
	}
	queue, err := study.Store().Queue(ctx) // of a process that was lost while it did this
	if err != nil {
		return 0, err
	}
	var seen []tune.Values
	for _, r := range older.Best(list) {
		given := tune.Values{}
		for name, value := range r.Values {
			if study.Space.Param(name) != nil {
				given[name] = value
			}
		}
		v, err := study.Space.Take(given)
		if err != nil || !study.Space.Allows(v) || slices.ContainsFunc(seen, func(s tune.Values) bool { return same(study.Space, s, v) }) {
			continue
		}
		if n == most {
			break
		}
		if !slices.ContainsFunc(queue, func(s tune.Values) bool { return same(study.Space, s, v) }) {
			if err := study.Enqueue(ctx, v); err != nil {
				return n, err
			}
		}
		seen, n = append(seen, v), n+1
	}
	return n, nil
}
