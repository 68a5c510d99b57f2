package tune

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Rules is the version of the rules by which trials follow from a study. A study of other rules can be read
// but not continued.
const Rules = 1

// An Objective is a number by which trials are compared.
type Objective struct {
	Name     string `json:"name"`               // such as a metric
	Maximize bool   `json:"maximize,omitempty"` // more is better
}

// Options are what a study is besides its space.
type Options struct {
	Seed       uint64      `json:"seed"`                 // of all that is random
	Trials     int         `json:"trials"`               // that are begun; 0: no limit
	Objectives []Objective `json:"objectives,omitempty"` // none means one, which is minimized

	Sampler string `json:"sampler"` // see SamplerNames; "": tpe, of several objectives gp
	Startup int    `json:"startup"` // trials at random before the sampler has something to go by; 0 means 10
	// Lag is the number of pieces of work that a decision does not look back on, so that they can be at
	// work at once: up to Lag+1 workers never wait for each other. The more, the older is what trials follow from.
	Lag int `json:"lag"`
	// Asynchronous lets decisions use all that is known when they are taken. Then trials
	// depend on which worker was faster, and the study cannot be repeated.
	Asynchronous bool `json:"asynchronous,omitempty"`

	Pruner    string `json:"pruner"`              // see PrunerNames; "" means none
	Resource  int    `json:"resource,omitempty"`  // units of a whole trial, such as epochs; only for a pruner
	Least     int    `json:"least,omitempty"`     // units before a trial is compared at all; 0 means 1
	Reduction int    `json:"reduction,omitempty"` // of asha and hyperband: one trial in so many goes on; 0 means 3
	// Resumable says that a paused trial can go on where it was, so that asha and hyperband may
	// come back to it. Otherwise they end a trial once and for all.
	Resumable bool `json:"resumable,omitempty"`
}

// ErrDone is returned when a study has no more work to give.
var ErrDone = errors.New("tune: the study is done")

// ErrWait is returned when the next piece of work depends on pieces that are not finished yet.
var ErrWait = errors.New("tune: the next trial depends on trials that are not finished; let Lag be the number of workers less 1")

// A Study gives pieces of work to one worker, and keeps their results. Several workers have a Study
// each on the same [Store]; one Study may also be used by several goroutines.
type Study struct {
	Space   *Space
	Options Options

	store  Store
	worker string
	lease  time.Duration

	mu        sync.Mutex
	pieces    []*Piece // by N
	revision  int64
	discarded map[int]bool // pieces whose checkpoints are gone
}

// New returns a study in memory.
func New(space *Space, o Options) (*Study, error) {
	return Open(context.Background(), NewMemory(), &Header{Options: o}, space)
}

// A DifferentError says that a store's study is not the one that was asked for.
type DifferentError struct{ Field, Stored, Given string }

func (e *DifferentError) Error() string {
	return fmt.Sprintf("the study was begun with %s %s, not %s; continue it with that, or begin another one", e.Field, cmp.Or(e.Stored, "none"), cmp.Or(e.Given, "none"))
}

// Open begins the study h of a space in a store, or continues it if the store's is the same, be it with
// more trials; otherwise the error is a *DifferentError. h.Version and h.Space are set.
func Open(ctx context.Context, store Store, h *Header, space *Space) (*Study, error) {
	if err := space.Check(); err != nil {
		return nil, err
	}
	h.Version, h.Space = Rules, space.String()
	if err := h.Options.fill(); err != nil {
		return nil, err
	}
	err := store.Create(ctx, h)
	if errors.Is(err, ErrTaken) {
		var there *Header
		if there, err = store.Header(ctx); err == nil {
			err = there.differs(h)
		}
	}
	if err != nil {
		return nil, err
	}
	s := newStudy(space, h.Options, store)
	if s.Options.Sampler == "grid" {
		err = space.checkGrid()
	}
	return s, err
}

// Load returns the study that a store holds, to look at, and its header; nil if there is none.
func Load(ctx context.Context, store Store) (*Study, *Header, error) {
	h, err := store.Header(ctx)
	if err != nil || h == nil {
		return nil, nil, err
	}
	space, err := ParseSpace("the study's space", h.Space)
	if err != nil {
		return nil, nil, err
	}
	o := h.Options
	if err := o.fill(); err != nil {
		return nil, nil, err
	}
	return newStudy(space, o, store), h, nil
}

func newStudy(space *Space, o Options, store Store) *Study {
	return &Study{Space: space, Options: o, store: store, worker: workerName(), lease: leaseTime, discarded: map[int]bool{}}
}

// Store returns the store of the study.
func (s *Study) Store() Store { return s.store }

func (o *Options) fill() error {
	if len(o.Objectives) == 0 {
		o.Objectives = []Objective{{Name: "value"}}
	}
	o.Startup, o.Least, o.Reduction = cmp.Or(o.Startup, 10), cmp.Or(o.Least, 1), cmp.Or(o.Reduction, 3)
	o.Pruner = cmp.Or(o.Pruner, "none")
	if o.Sampler == "" {
		if o.Sampler = "tpe"; len(o.Objectives) > 1 {
			o.Sampler = "gp"
		}
	}
	switch {
	case o.Lag < 0 || o.Trials < 0 || o.Startup < 0 || o.Least < 0:
		return fmt.Errorf("lag, trials, startup and least are 0 or more")
	case o.Reduction < 2:
		return fmt.Errorf("reduction %d: expected 2 or more", o.Reduction)
	case o.Pruner != "none" && len(o.Objectives) > 1:
		return fmt.Errorf("pruner %s is for one objective, and the study has %d", o.Pruner, len(o.Objectives))
	case o.Pruner != "none" && o.Resource < 1:
		return fmt.Errorf("pruner %s needs the resource of a whole trial", o.Pruner)
	}
	return cmp.Or(o.checkSampler(), o.checkPruner())
}

// differs returns an error that names the first difference that would make other trials of it. The number of
// trials may differ: a study is the beginning of a longer one.
func (h *Header) differs(other *Header) error {
	options := func(h *Header) map[string]json.RawMessage {
		o := h.Options
		o.Trials = 0
		text, _ := json.Marshal(o)
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(text, &fields) // of what was just written
		return fields
	}
	stored, given := options(h), options(other)
	all := maps.Clone(stored)
	maps.Copy(all, given) // those that are zero are not written
	var x, y []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		x, y = append(x, strings.TrimSpace(name+" "+string(stored[name]))), append(y, strings.TrimSpace(name+" "+string(given[name])))
	}
	for _, one := range []struct{ name, stored, given string }{
		{"the rules of version", fmt.Sprint(h.Version), fmt.Sprint(other.Version)},
		{"the settings", h.Subject, other.Subject},
		{"data of checksum", h.Data, other.Data},
		{"the space", h.Space, other.Space},
		{"the option", strings.Join(x, "\n"), strings.Join(y, "\n")},
	} {
		if one.stored != one.given {
			stored, given := firstDifference(one.stored, one.given)
			return &DifferentError{one.name, stored, given}
		}
	}
	return nil
}

// firstDifference returns the lines in which two texts differ first.
func firstDifference(a, b string) (string, string) {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i], y[i]
		}
	}
	if len(x) > len(y) {
		return x[len(y)], ""
	}
	if len(y) > len(x) {
		return "", y[len(x)]
	}
	return a, b
}

// A Trial is a piece of work in the hands of a worker.
type Trial struct {
	Number int
	Seed   int // above 0: this is a repeat with another seed, see Study.Repeat
	Values Values
	// From is the resource that the trial has behind it, above 0 if it goes on from its checkpoint;
	// Until is where it is to pause, 0 if it is to be completed.
	From, Until int
	Piece       *Piece

	study *Study
	lease time.Duration
	rule  rule
	curve []Point
}

// Float returns the value of a Float parameter, 0 if it is not used in the trial.
func (t *Trial) Float(name string) float64 { x, _ := t.Values[name].(float64); return x }

// Int returns the value of an Int parameter, 0 if it is not used in the trial.
func (t *Trial) Int(name string) int { x, _ := t.Values[name].(int); return x }

// Choice returns the value of a Choice parameter, "" if it is not used in the trial.
func (t *Trial) Choice(name string) string { x, _ := t.Values[name].(string); return x }

// Ask returns the next piece of work: first one whose worker was lost, be it a repeat, then a new one. It does not
// wait: the error is ErrWait if unfinished pieces stand in the way, and ErrDone at the end.
func (s *Study) Ask(ctx context.Context) (*Trial, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := s.refresh(ctx); err != nil {
			return nil, err
		}
		lost, err := s.store.Expired(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range lost {
			if n >= len(s.pieces) {
				continue // added since the refresh
			}
			if t, err := s.takeOver(ctx, n); t != nil || err != nil {
				return t, err
			}
		}
		p, err := s.next(ctx)
		if errors.Is(err, ErrDone) {
			err = cmp.Or(s.discard(ctx, s.paused()), err)
		}
		if err != nil {
			return nil, err
		}
		switch err := s.store.Add(ctx, p, s.lease); {
		case errors.Is(err, ErrTaken): // by another worker, who has decided the same
		case err != nil:
			return nil, err
		case p.State == Running:
			if err := s.refresh(ctx); err != nil {
				return nil, err
			}
			return s.trial(s.pieces[p.N]), nil
		}
	}
}

// takeOver takes a piece whose worker was lost; nil if another worker was faster.
func (s *Study) takeOver(ctx context.Context, n int) (*Trial, error) {
	err := s.store.Steal(ctx, n, s.pieces[n].Epoch, s.worker, s.lease)
	if errors.Is(err, ErrTaken) {
		return nil, nil
	}
	if err == nil {
		err = s.refresh(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.trial(s.pieces[n]), nil
}

// Repeat returns a repeat of a trial with another seed, 1 or more: the trial anew from its beginning to its end. Repeats say
// how far a result is luck; no trial follows from them, so it does not matter to a study when they are made. Each is made once, by whoever
// asks first: the error is ErrWait while another worker has it, and ErrDone when it is finished.
func (s *Study) Repeat(ctx context.Context, trial, seed int) (*Trial, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := s.refresh(ctx); err != nil {
			return nil, err
		}
		of := func(seed int) int {
			return slices.IndexFunc(s.pieces, func(p *Piece) bool { return p.Trial == trial && p.Seed == seed })
		}
		switch n := of(seed); {
		case of(0) < 0:
			return nil, fmt.Errorf("there is no trial %d to repeat", trial)
		case n < 0:
			p := &Piece{N: len(s.pieces), Trial: trial, Seed: seed, Values: s.pieces[of(0)].Values, Worker: s.worker, State: Running}
			switch err := s.store.Add(ctx, p, s.lease); {
			case errors.Is(err, ErrTaken): // another piece has become this one
				continue
			case err != nil:
				return nil, err
			}
			if err := s.refresh(ctx); err != nil {
				return nil, err
			}
			return s.trial(s.pieces[p.N]), nil
		case s.pieces[n].Finished():
			return nil, ErrDone
		default:
			lost, err := s.store.Expired(ctx)
			if err != nil {
				return nil, err
			}
			if slices.Contains(lost, n) {
				if t, err := s.takeOver(ctx, n); t != nil || err != nil {
					return t, err
				}
			}
			return nil, ErrWait
		}
	}
}

// Next is Ask, and waits until there is work.
func (s *Study) Next(ctx context.Context) (*Trial, error) {
	for {
		t, err := s.Ask(ctx)
		if !errors.Is(err, ErrWait) && !(errors.Is(err, ErrDone) && s.working()) {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pollTime):
		}
	}
}

// working reports whether a piece is at work, which may be lost yet.
func (s *Study) working() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.sequence(), func(p *Piece) bool { return p.State == Running })
}

// sequence is the pieces that decisions look at, which repeats are not among: a study that goes on after they were made goes on as if they had
// not been.
func (s *Study) sequence() []*Piece {
	return slices.DeleteFunc(slices.Clone(s.pieces), func(p *Piece) bool { return p.Seed > 0 })
}

// seen is the number of pieces whose results the decision on the n-th of the sequence knows.
func (s *Study) seen(n int) int {
	if s.Options.Asynchronous {
		return n
	}
	return max(0, n-s.Options.Lag)
}

const (
	leaseTime = 30 * time.Second
	pollTime  = 50 * time.Millisecond
)

// refresh reads what has changed in the store.
func (s *Study) refresh(ctx context.Context) error {
	changed, revision, err := s.store.Read(ctx, s.revision)
	if err != nil {
		return err
	}
	for _, p := range changed {
		if p.N == len(s.pieces) {
			s.pieces = append(s.pieces, p)
		} else {
			s.pieces[p.N] = p
		}
	}
	s.revision = revision
	return nil
}

// next decides what the next piece is.
func (s *Study) next(ctx context.Context) (*Piece, error) {
	list := s.sequence()
	seen := s.seen(len(list))
	if !s.Options.Asynchronous && slices.ContainsFunc(list[:seen], func(p *Piece) bool { return !p.Finished() }) {
		return nil, ErrWait
	}
	queue, err := s.store.Queue(ctx)
	if err != nil {
		return nil, err
	}
	h := s.history(list, seen)
	p := &Piece{N: len(s.pieces), Worker: s.worker, State: Running}
	if trial, from, until, ok := s.promote(h); ok {
		p.Trial, p.From, p.Until = trial, from, until
		return p, nil
	}
	if s.Options.Trials == 0 || len(h.trials) < s.Options.Trials {
		v, origin, err := s.begin(h, queue)
		if !errors.Is(err, ErrDone) { // the sampler has more values
			p.Trial, p.Until, p.Values, p.Origin = len(h.trials), s.firstRung(len(h.trials)), v, origin
			return p, err
		}
	}
	switch {
	case s.Options.Asynchronous || !s.Options.promotes():
		if slices.ContainsFunc(list, func(p *Piece) bool { return !p.Finished() }) { // and its worker may be lost
			return nil, ErrWait
		}
	case slices.ContainsFunc(list[seen:], func(p *Piece) bool { return p.State != Idle }): // a trial may go on by their results
		p.Trial, p.State = -1, Idle
		return p, nil
	}
	return nil, ErrDone
}

// begin returns the values of a new trial.
func (s *Study) begin(h *history, queue []Values) (Values, string, error) {
	number, enqueued := len(h.trials), 0
	for _, t := range h.trials {
		if t.origin == "enqueued" {
			enqueued++
		}
	}
	if enqueued < len(queue) {
		return queue[enqueued], "enqueued", nil
	}
	defaults := s.Space.Defaults()
	if defaults != nil && !slices.ContainsFunc(h.trials, func(t *past) bool { return t.origin == "default" }) && s.Space.Allows(defaults) {
		return defaults, "default", nil
	}
	k := &knowledge{space: s.Space, objectives: len(s.Options.Objectives), trials: h.observations(), number: number, first: max(s.Options.Startup, enqueued), seed: s.Options.Seed}
	kind, origin := samplers[s.Options.Sampler], s.Options.Sampler
	from := kind.sampler
	if !kind.blind && number < k.first {
		from, origin = around{}, "startup"
	}
	k.tried = map[string]bool{}
	for _, t := range h.trials {
		k.tried[s.Space.text(t.values)] = true
	}
	var v Values
	for try := range 400 {
		k.try, k.rand = try, rand.New(rand.NewPCG(s.Options.Seed, uint64(number)<<20|uint64(try)))
		if try >= 100 {
			from = uniform{} // what the sampler prefers is used up or not allowed
		}
		if v = from.sample(k); v == nil {
			return nil, "", ErrDone
		}
		if k.fresh(v) {
			return v, origin, nil
		}
	}
	if s.Space.Allows(v) {
		return v, origin, nil // a small space, all of which has been tried
	}
	return nil, "", fmt.Errorf("of 400 trials drawn from the space none keeps its constraints; widen the ranges or the bounds")
}

// trial puts a piece into a worker's hands.
func (s *Study) trial(p *Piece) *Trial {
	t := &Trial{Number: p.Trial, Seed: p.Seed, Values: p.Values, From: p.From, Until: p.Until, Piece: p, study: s, lease: s.lease}
	if p.Seed > 0 {
		t.curve = slices.Clone(p.Points)
		return t
	}
	list := s.sequence()
	list = list[:slices.Index(list, p)]
	h := s.history(list, s.seen(len(list)))
	if p.Trial < len(h.trials) {
		t.Values, t.curve = h.trials[p.Trial].values, slices.Clone(h.trials[p.Trial].curve)
	}
	t.curve = append(t.curve, p.Points...) // by a worker that was lost
	t.rule = s.stopping(h, p.Trial)
	return t
}

// Report keeps the objectives of a trial part way, after at units of its resource and steps training
// steps, and reports whether the trial is to stop: it is pruned, or pauses here.
func (t *Trial) Report(ctx context.Context, at, steps int, values ...float64) (stop bool, err error) {
	p := Point{At: at, Steps: steps, Values: values}
	t.study.mu.Lock()
	defer t.study.mu.Unlock()
	if err := t.study.checkValues(values); err != nil {
		return false, err
	}
	if at <= t.From { // its checkpoint is gone, and it goes the same way again
		return false, nil
	}
	if err := t.study.store.Report(ctx, t.Piece.N, t.Piece.Epoch, p); err != nil {
		return false, err
	}
	t.curve = append(slices.DeleteFunc(t.curve, func(q Point) bool { return q.At >= at }), p)
	return t.Until > 0 && at >= t.Until || t.pruned(), nil
}

// pruned reports whether the last point ends the trial.
func (t *Trial) pruned() bool { return t.rule != nil && len(t.curve) > 0 && t.rule(t.curve) }

func (s *Study) checkValues(values []float64) error {
	if len(values) != len(s.Options.Objectives) {
		return fmt.Errorf("expected %d objectives of a trial, got %d", len(s.Options.Objectives), len(values))
	}
	return nil
}

// Tell keeps a trial's result. If Report said that the trial stops, it is pruned or paused with
// these values, otherwise complete. Values that are not finite are a failure. measures are other numbers, such as
// those that constraints are on.
func (t *Trial) Tell(ctx context.Context, measures map[string]float64, values ...float64) error {
	p := *t.Piece
	p.State, p.Result, p.Measures = Complete, values, measures
	if err := t.study.checkValues(values); err != nil {
		return err
	}
	last := 0
	if len(t.curve) > 0 {
		last = t.curve[len(t.curve)-1].At
	}
	switch {
	case slices.ContainsFunc(values, func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }):
		p.State, p.Result, p.Error = Failed, nil, "its result is not a finite number"
	case t.pruned():
		p.State = Pruned
	case t.Until > 0 && last >= t.Until && last < t.study.Options.Resource:
		p.State = Paused
	}
	return t.finish(ctx, &p)
}

// Fail keeps the reason why a trial has no result. The study goes on.
func (t *Trial) Fail(ctx context.Context, reason error) error {
	p := *t.Piece
	p.State, p.Error = Failed, strings.Map(func(r rune) rune {
		if unicode.IsControl(r) { // it is shown in terminals, in a line
			return ' '
		}
		return r
	}, reason.Error())
	return t.finish(ctx, &p)
}

func (t *Trial) finish(ctx context.Context, p *Piece) error {
	t.study.mu.Lock()
	defer t.study.mu.Unlock()
	if err := t.study.store.Finish(ctx, p, p.State != Paused); err != nil {
		return err
	}
	return t.study.tidy(ctx)
}

// tidy removes the checkpoints of paused trials that never go on, as far as can be told now.
func (s *Study) tidy(ctx context.Context) error {
	if !s.Options.promotes() {
		return nil
	}
	if err := s.refresh(ctx); err != nil {
		return err
	}
	list := s.sequence()
	never := s.hopeless(s.history(list, s.seen(len(list)))) // the next decision, and those after it know more
	return s.discard(ctx, slices.DeleteFunc(s.paused(), func(p *Piece) bool { return !never[p.Trial] }))
}

// paused returns the last pieces of the paused trials.
func (s *Study) paused() []*Piece {
	last, list := map[int]int{}, s.sequence()
	for _, p := range list {
		last[p.Trial] = p.N
	}
	return slices.DeleteFunc(list, func(p *Piece) bool { return p.State != Paused || last[p.Trial] != p.N })
}

// discard removes the checkpoints of the trials that are paused since these pieces. If one goes on after all, because more trials
// are added to the study, it goes the same way again from its beginning.
func (s *Study) discard(ctx context.Context, pieces []*Piece) error {
	var list []int
	for _, p := range pieces {
		if !s.discarded[p.N] {
			list = append(list, p.N)
		}
	}
	if len(list) == 0 {
		return nil
	}
	err := s.store.Discard(ctx, list)
	for _, n := range list {
		s.discarded[n] = err == nil
	}
	return err
}

// Tell is t.Tell without measures.
func (s *Study) Tell(ctx context.Context, t *Trial, values ...float64) error {
	return t.Tell(ctx, nil, values...)
}

// Enqueue lets values be the next trial's that begins. Parameters that are missing have their defaults.
func (s *Study) Enqueue(ctx context.Context, v Values) error {
	v, err := s.Space.Take(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Enqueue(ctx, v)
}

// Run works on a study until it is done: f computes the objectives of a trial. Its context is that of [Trial.Hold].
func (s *Study) Run(ctx context.Context, f func(ctx context.Context, t *Trial) ([]float64, error)) error {
	for {
		t, err := s.Next(ctx)
		if errors.Is(err, ErrDone) {
			return nil
		}
		if err != nil {
			return err
		}
		held, stop := t.Hold(ctx)
		values, err := f(held, t)
		stop()
		switch {
		case ctx.Err() != nil: // the trial is not at fault
			t.Release(context.WithoutCancel(ctx)) // if that fails it costs the others time
			return ctx.Err()
		case err != nil:
			err = t.Fail(ctx, err)
		default:
			err = t.Tell(ctx, nil, values...)
		}
		if err != nil && !errors.Is(err, ErrFenced) {
			return err
		}
	}
}
