package tune

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// past is a trial as far as it is known.
type past struct {
	number   int
	values   Values
	origin   string
	curve    []Point // of finished pieces, by At
	state    State   // Running if a piece of it is not known yet
	result   []float64
	measures map[string]float64
	pieces   int
}

// history is the trials as far as pieces of work are known.
type history struct {
	study  *Study
	trials []*past
}

// history returns what is known by the results of the first pieces of a list, as many as are seen.
func (s *Study) history(list []*Piece, seen int) *history {
	h := &history{study: s}
	for i, p := range list {
		if p.State == Idle {
			continue
		}
		if p.Trial == len(h.trials) {
			h.trials = append(h.trials, &past{number: p.Trial, values: p.Values, origin: p.Origin})
		}
		t := h.trials[p.Trial]
		t.pieces++
		if i >= seen || !p.Finished() {
			t.state = Running
			continue
		}
		for _, q := range p.Points {
			t.curve = append(slices.DeleteFunc(t.curve, func(r Point) bool { return r.At >= q.At }), q)
		}
		t.state, t.result, t.measures = p.State, p.Result, p.Measures
	}
	return h
}

// loss turns an objective so that less is better.
func (o *Options) loss(i int, x float64) float64 {
	if o.Objectives[i].Maximize {
		return -x
	}
	return x
}

func (o *Options) losses(values []float64) []float64 {
	list := make([]float64, len(values))
	for i, x := range values {
		list[i] = o.loss(i, x)
	}
	return list
}

// observations are the trials as samplers see them.
func (h *history) observations() []observation {
	o := &h.study.Options
	list := make([]observation, len(h.trials))
	for i, t := range h.trials {
		one := observation{number: i, values: t.values, at: math.MaxInt}
		switch {
		case t.state == Failed:
			one.losses = make([]float64, len(o.Objectives))
			for j := range one.losses {
				one.losses[j] = math.NaN()
			}
		case t.state == Complete:
			one.losses = o.losses(t.result)
		case t.state != Running && len(t.curve) > 0:
			last := t.curve[len(t.curve)-1]
			one.losses, one.at = o.losses(last.Values), last.At
		}
		if one.losses != nil {
			one.excess = h.study.excess(t.values, t.measures)
		}
		list[i] = one
	}
	return list
}

// excess is the sum of what measured constraints are broken by, in shares of their bounds' size.
func (s *Study) excess(v Values, measures map[string]float64) (sum float64) {
	for _, c := range s.Space.Constraints {
		if x := c.Excess(v, measures); c.measured != "" && x > 0 {
			sum += x / min(max(1e-300, math.Abs(c.value(c.right, v, measures))), math.MaxFloat64)
		}
	}
	return sum
}

// A Record is a trial as it stands.
type Record struct {
	Number   int                `json:"number"`             // counted from 0
	Seed     int                `json:"-"`                  // above 0: of a repeat
	Values   Values             `json:"params"`             // by name; those of parameters that are not used in the trial are absent
	Value    *float64           `json:"value"`              // the first objective: of a trial that was pruned or is paused where it stands; null if there is none
	Results  []float64          `json:"values,omitempty"`   // all objectives
	State    State              `json:"state"`              // running, paused, complete, pruned or failed
	Steps    int                `json:"steps"`              // training steps, or units of the resource where no steps are known
	Origin   string             `json:"origin"`             // where the parameters come from: default, enqueued, startup or the sampler
	Curve    []Point            `json:"curve,omitempty"`    // the objectives part way
	Measures map[string]float64 `json:"measures,omitempty"` // other numbers, such as those that constraints are on
	Broken   []string           `json:"broken,omitempty"`   // measured constraints that it does not keep
	Error    string             `json:"error,omitempty"`    // why it failed
	Seconds  float64            `json:"seconds,omitempty"`  // of work
}

// Losses are the objectives, each turned so that less is better.
func (s *Study) Losses(r *Record) []float64 { return s.Options.losses(r.Results) }

// Trials returns all trials by number, with what is known of those at work.
func (s *Study) Trials(ctx context.Context) ([]*Record, error) { return s.records(ctx, false) }

// Repeats returns the repeats of trials in the order in which they were begun: their Number is that of the trial, and Seed says which one it is.
func (s *Study) Repeats(ctx context.Context) ([]*Record, error) { return s.records(ctx, true) }

func (s *Study) records(ctx context.Context, repeats bool) ([]*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	lost, err := s.store.Expired(ctx)
	if err != nil {
		return nil, err
	}
	var list []*Record
	of := map[run]*Record{}
	for _, p := range s.pieces {
		if p.State == Idle || (p.Seed > 0) != repeats {
			continue
		}
		r := of[p.run()]
		if r == nil {
			r = &Record{Number: p.Trial, Seed: p.Seed, Values: p.Values, Origin: p.Origin}
			of[p.run()], list = r, append(list, r)
		}
		for _, q := range p.Points {
			r.Curve = append(slices.DeleteFunc(r.Curve, func(x Point) bool { return x.At >= q.At }), q)
			r.Steps = cmp.Or(q.Steps, q.At)
		}
		r.State, r.Results, r.Measures, r.Error = p.State, p.Result, p.Measures, p.Error
		if p.State == Running && slices.Contains(lost, p.N) {
			r.State = Paused // nobody works on it
		}
		r.Seconds += p.Seconds
		if len(p.Result) > 0 {
			r.Value = &p.Result[0]
		}
		for _, c := range s.Space.Constraints {
			if c.measured != "" && c.Excess(r.Values, r.Measures) > 0 && !slices.Contains(r.Broken, c.Text) {
				r.Broken = append(r.Broken, c.Text)
			}
		}
	}
	return list, nil
}

// Best returns the complete trials that keep all constraints, the best first: of one objective by its value, of
// several those that no other one is better than in all, by number.
func (s *Study) Best(list []*Record) []*Record {
	good := slices.DeleteFunc(slices.Clone(list), func(r *Record) bool { return r.State != Complete || len(r.Broken) > 0 })
	if len(s.Options.Objectives) > 1 {
		return slices.DeleteFunc(slices.Clone(good), func(r *Record) bool {
			return slices.ContainsFunc(good, func(q *Record) bool { return dominates(s.Losses(q), s.Losses(r)) })
		})
	}
	slices.SortStableFunc(good, func(a, b *Record) int { return cmp.Compare(s.Losses(a)[0], s.Losses(b)[0]) })
	return good
}

// dominates reports whether losses a are nowhere above b, and somewhere below.
func dominates(a, b []float64) bool {
	below := false
	for i, x := range a {
		if x > b[i] {
			return false
		}
		below = below || x < b[i]
	}
	return below
}

// text is values in one line, in the order of the space: equal for equal values.
func (s *Space) text(v Values) string {
	var b strings.Builder
	for _, p := range s.Params {
		if one, has := v[p.Name]; has {
			fmt.Fprintf(&b, "%s=%s ", p.Name, p.Text(one))
		}
	}
	return strings.TrimSpace(b.String())
}

// workerName is a name for people.
func workerName() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s/%d", cmp.Or(host, "worker"), os.Getpid())
}
