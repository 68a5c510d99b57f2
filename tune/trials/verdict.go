package trials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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

// Repeat trains the best [Finalists] trials and the defaults with [Seeds] further seeds each: they decide on the winner. All
// processes that call it share the runs, and what was done before, also in part, is not done again. It ends when all are done, ctx
// is cancelled or its time is up, which is no error. The errors are those of [Work].
func Repeat(ctx context.Context, study *tune.Study, s Subject, o *Options) error {
	list, err := study.Trials(ctx)
	if err != nil {
		return err
	}
	todo := repeats(study, list)
	c, end := newCrew(study, s, o)
	defer end()
	err = c.each(ctx, func(ctx context.Context) error {
		for {
			left := false
			for _, r := range todo {
				t, err := study.Repeat(ctx, r.trial, r.seed)
				switch {
				case errors.Is(err, tune.ErrDone):
					continue
				case errors.Is(err, tune.ErrWait): // another worker has it, and may be lost
					left = true
					continue
				case err == nil:
					err = c.work(ctx, t)
				case ctx.Err() != nil:
					err = context.Cause(ctx)
				}
				if err != nil {
					return err
				}
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
	switch {
	case errors.Is(err, errTime):
		return nil
	case err != nil:
		return err
	}
	return study.Store().Discard(ctx, nil) // the room of what the repeats went on from
}

// Expected is how long repeats are expected to take.
type Expected struct {
	Runs int           // that are not finished yet
	All  time.Duration // for all of them, by so many workers
	One  time.Duration // for one whole run, the longest
}

// Expect returns how long [Repeat] will take with a number of workers, by the time that the trials took: those that were ended
// early as much longer as they would have been.
func Expect(ctx context.Context, study *tune.Study, workers int) (*Expected, error) {
	list, err := study.Trials(ctx)
	if err != nil {
		return nil, err
	}
	done, err := study.Repeats(ctx)
	if err != nil {
		return nil, err
	}
	e := &Expected{}
	for _, r := range repeats(study, list) {
		trial := list[r.trial]
		seconds := trial.Seconds
		if n := len(trial.Curve); n > 0 && trial.State != tune.Complete {
			seconds *= max(1, float64(study.Options.Resource)/float64(trial.Curve[n-1].At))
		}
		one := time.Duration(seconds * float64(time.Second))
		e.One = max(e.One, one)
		if !slices.ContainsFunc(done, func(d *tune.Record) bool {
			return d.Number == r.trial && d.Seed == r.seed && (d.State == tune.Complete || d.State == tune.Failed)
		}) {
			e.Runs++
			e.All += one
		}
	}
	e.All = max(e.All/time.Duration(max(workers, 1)), min(e.One, e.All))
	return e, nil
}

type repeat struct{ trial, seed int }

// repeats returns the repeats that a study needs, seed by seed.
func repeats(study *tune.Study, list []*tune.Record) (todo []repeat) {
	best, defaults := finalists(study, list)
	if defaults >= 0 && !slices.Contains(best, defaults) {
		best = append(best, defaults)
	}
	for seed := 1; seed <= Seeds; seed++ {
		for _, n := range best {
			todo = append(todo, repeat{n, seed})
		}
	}
	return todo
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
	repeated, err := study.Repeats(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(repeated, func(a, b *tune.Record) int { return cmp.Compare(a.Seed, b.Seed) })
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
		for _, r := range repeated {
			switch {
			case r.Number != n:
			case r.State == tune.Failed:
				f.Failed++
			case r.State == tune.Complete:
				f.Values = append(f.Values, r.Results[0])
				for _, text := range r.Broken {
					if !slices.Contains(f.Broken, text) {
						f.Broken = append(f.Broken, text)
					}
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
