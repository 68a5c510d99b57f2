package tune

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A rule reports whether a trial ends at the last point of its curve. It is a function of the curve
// and of what the study knew when the trial's piece of work began.
type rule func(curve []Point) bool

// pruners are the names of the pruners, and what they do.
var pruners = []struct{ name, about string }{
	{"none", "every trial is completed"},
	{"asha", "asynchronous successive halving (Li et al. 2020): at each rung one trial in `reduction` goes on"},
	{"hyperband", "asha in brackets whose first rungs differ (Li et al. 2018), against curves that cross"},
	{"median", "a trial ends where the best of its values is worse than the median of the others' at the same point"},
	{"percentile", "likewise, with the best quarter in place of the median"},
	{"patient", "a trial ends when it has not improved for a fifth of the resource"},
}

// PrunerNames returns the names of the pruners.
func PrunerNames() []string {
	var list []string
	for _, p := range pruners {
		list = append(list, p.name)
	}
	return list
}

func (o *Options) checkPruner() error {
	if !slices.Contains(PrunerNames(), o.Pruner) {
		return fmt.Errorf("pruner %q: expected one of %s", o.Pruner, strings.Join(PrunerNames(), ", "))
	}
	return nil
}

// halves reports whether the pruner compares trials at rungs.
func (o *Options) halves() bool { return o.Pruner == "asha" || o.Pruner == "hyperband" }

// promotes reports whether trials that were paused at rungs go on.
func (o *Options) promotes() bool { return o.halves() && o.Resumable }

// rungs returns where trials of a bracket are compared: Least·Reduction^(bracket+i) units, below Resource.
func (o *Options) rungs(bracket int) (list []int) {
	at := float64(o.Least) * math.Pow(float64(o.Reduction), float64(bracket))
	for ; at < float64(o.Resource); at *= float64(o.Reduction) {
		list = append(list, int(at))
	}
	return list
}

// bracket returns the bracket of a trial.
func (o *Options) bracket(number int) int { return o.brackets(number + 1)[number] }

// brackets returns the bracket of each of the first n trials. Hyperband's brackets have as many trials as their shares of an equal
// budget give them: of s+1 rungs Reduction^s/(s+1), the brackets with more rungs first.
func (o *Options) brackets(n int) []int {
	list := make([]int, n)
	if o.Pruner != "hyperband" {
		return list
	}
	most := len(o.rungs(0))
	weights, sum := make([]float64, most+1), 0.0
	for b := range weights {
		s := float64(most - b)
		weights[b] = math.Ceil(float64(most+1) / (s + 1) * math.Pow(float64(o.Reduction), s))
		sum += weights[b]
	}
	// The bracket that is furthest behind its share takes the next trial.
	counts := make([]float64, most+1)
	for n := range list {
		best := 0
		for b, w := range weights {
			if w/sum*float64(n+1)-counts[b] > weights[best]/sum*float64(n+1)-counts[best]+1e-9 {
				best = b
			}
		}
		counts[best]++
		list[n] = best
	}
	return list
}

// firstRung returns where the first piece of a trial pauses, 0 if nowhere.
func (s *Study) firstRung(number int) int {
	o := &s.Options
	if !o.promotes() {
		return 0
	}
	if r := o.rungs(o.bracket(number)); len(r) > 0 {
		return r[0]
	}
	return 0
}

// promote returns a paused trial that goes on, if there is one: of the highest rung at which a trial is
// among the best one in Reduction of those that have been there, the best.
func (s *Study) promote(h *history) (trial, from, until int, ok bool) {
	o := &s.Options
	if !o.promotes() {
		return 0, 0, 0, false
	}
	most, brackets := len(o.rungs(0)), o.brackets(len(h.trials))
	for level := most - 1; level >= 0; level-- {
		for b := range most - level {
			rungs := o.rungs(b)
			at := rungs[level]
			there := h.cameTo(at, func(t *past) bool { return brackets[t.number] == b })
			for _, t := range there[:len(there)/o.Reduction] {
				if t.waits(at) {
					until := 0
					if level+1 < len(rungs) {
						until = rungs[level+1]
					}
					return t.number, at, until, true
				}
			}
		}
	}
	return 0, 0, 0, false
}

// hopeless returns the paused trials that are never promoted, whatever becomes of the others, if no more than Options.Trials
// are begun. The rank of a trial at its rung only falls, and of those that can still come there one in Reduction goes on.
func (s *Study) hopeless(h *history) map[int]bool {
	o, list := &s.Options, map[int]bool{}
	if !o.promotes() || o.Trials == 0 {
		return list
	}
	most, brackets := len(o.rungs(0)), o.brackets(max(o.Trials, len(h.trials)))
	for b := range most {
		for _, at := range o.rungs(b) {
			there := h.cameTo(at, func(t *past) bool { return brackets[t.number] == b })
			coming := 0
			for number, of := range brackets {
				switch {
				case of != b:
				case number >= len(h.trials):
					coming++
				case math.IsNaN(o.atRung(h.trials[number].curve, at)):
					if t := h.trials[number]; t.state == Running || t.state == Paused && !list[number] {
						coming++
					}
				}
			}
			for rank, t := range there {
				if t.waits(at) && rank >= (len(there)+coming)/o.Reduction {
					list[t.number] = true
				}
			}
		}
	}
	return list
}

// cameTo returns the trials of a bracket that have come to a rung, the best there first.
func (h *history) cameTo(at int, inBracket func(t *past) bool) (list []*past) {
	o := &h.study.Options
	for _, t := range h.trials {
		if inBracket(t) && !math.IsNaN(o.atRung(t.curve, at)) {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(x, y *past) int {
		return compareLoss(o.atRung(x.curve, at), o.atRung(y.curve, at))
	})
	return list
}

// waits reports whether the trial is paused at a rung.
func (t *past) waits(at int) bool { return t.state == Paused && t.curve[len(t.curve)-1].At == at }

func compareLoss(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// atRung returns the loss of a curve at a rung, NaN if it has not come so far.
func (o *Options) atRung(curve []Point, at int) float64 {
	for _, p := range curve {
		if p.At >= at {
			return o.loss(0, p.Values[0])
		}
	}
	return math.NaN()
}

// Trials that must have been completed before a trial is compared with them.
const compared = 5

// stopping returns the rule for a trial, nil if it never stops early.
func (s *Study) stopping(h *history, number int) rule {
	o := &s.Options
	var others []*past // as they were known, without those at work
	complete := 0
	for _, t := range h.trials {
		if t.number != number && t.state != Running {
			others = append(others, t)
		}
		if t.state == Complete {
			complete++
		}
	}
	ranked := func(at int) (list []float64) {
		for _, t := range others {
			if x := o.atRung(t.curve, at); !math.IsNaN(x) {
				list = append(list, x)
			}
		}
		slices.Sort(list)
		return list
	}
	best := func(curve []Point) (at int, loss float64) {
		loss = math.Inf(1)
		for _, p := range curve {
			if x := o.loss(0, p.Values[0]); x < loss {
				at, loss = p.At, x
			}
		}
		return at, loss
	}
	switch {
	case o.halves() && !o.Resumable:
		brackets := o.brackets(max(number+1, len(h.trials)))
		rungs := o.rungs(brackets[number])
		same := others[:0:0]
		for _, t := range others {
			if brackets[t.number] == brackets[number] {
				same = append(same, t)
			}
		}
		others = same
		return func(curve []Point) bool {
			last := curve[len(curve)-1].At
			for _, at := range rungs {
				passed := len(curve) > 1 && curve[len(curve)-2].At >= at
				if passed || last < at {
					continue
				}
				own := o.loss(0, curve[len(curve)-1].Values[0])
				list := ranked(at)
				better := 0
				for _, x := range list {
					if x < own {
						better++
					}
				}
				if math.IsNaN(own) || better >= max(1, (len(list)+1)/o.Reduction) {
					return true
				}
			}
			return false
		}
	case o.Pruner == "median", o.Pruner == "percentile":
		share := 0.5
		if o.Pruner == "percentile" {
			share = 0.25
		}
		return func(curve []Point) bool {
			last := curve[len(curve)-1].At
			list := ranked(last)
			if complete < compared || last < o.Least || last >= o.Resource || len(list) == 0 {
				return false
			}
			_, own := best(curve)
			return own > list[min(int(share*float64(len(list))), len(list)-1)]
		}
	case o.Pruner == "patient":
		return func(curve []Point) bool {
			last := curve[len(curve)-1].At
			at, _ := best(curve)
			return last < o.Resource && last-at >= max(o.Least, (o.Resource+4)/5)
		}
	}
	return nil
}
