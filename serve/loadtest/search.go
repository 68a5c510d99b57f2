package loadtest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Trial is a rate that [Search] tried.
type Trial struct {
	Rate   float64 `json:"rate"`   // requests per second that were due
	P99    float64 `json:"p99_ms"` // milliseconds
	Failed int     `json:"failed"` // requests with an error, or without an answer
	Met    bool    `json:"met"`    // the objective, without a failed request
	// Late says that the rate is too much for this generator: that it was later itself than
	// half of the objective with more than one request in a hundred.
	Late bool `json:"late,omitempty"` // the generator itself was too late with its requests, so the rate is the generator's limit
}

// Limits of a search.
const (
	firstRate  = 20   // requests per second, if the load has none
	searchStep = 1.05 // the rates between which a search ends differ by this factor at most
	leastCount = 200  // requests of a trial, of which p99 leaves out two
	maxTrial   = 20.0 // seconds, if l.Seconds is less
	aloneCount = 20   // requests, one after the other, that tell whether a search is of use
	settle     = 200 * time.Millisecond
)

// Search looks for the highest rate at which the 99th percentile of the latency is at most
// the objective and no request fails: it doubles the rate of the load until that is no
// longer so, or halves it until it is, and then divides what is between. The rate is tried
// again for twice as long in the end, and lowered if it does not hold, since a search finds
// rates that held by chance. The report is that of the last trial; nil if no rate met the
// objective.
//
// A trial lasts l.Seconds, 3 if that is 0, and longer if there would be few requests. told
// is called after each; it may be nil.
func Search(ctx context.Context, t Target, l Load, objective time.Duration, told func(Trial)) (*Report, []Trial, error) {
	if objective <= 0 {
		return nil, nil, errors.New("objective: want a time above 0")
	}
	if l.Rate == 0 {
		l.Rate = firstRate
	}
	if l.Seconds == 0 {
		l.Seconds = 3
	}
	l.Count = 0
	l.Grace = objective + time.Second // what comes later has failed the objective anyway
	var trials []Trial
	try := func(rate, length float64) (*Report, bool, error) {
		one := l
		one.Rate, one.Seed = rate, l.Seed+uint64(len(trials))
		one.Seconds = max(l.Seconds*length, min(leastCount/rate, maxTrial))
		r, err := Run(ctx, t, one)
		if err != nil {
			return nil, false, err
		}
		p99 := r.Total.Quantile(0.99)
		trial := Trial{Rate: rate, P99: milliseconds(p99), Failed: r.Failed() + r.Lost, Late: r.Late.Quantile(0.99) > objective/2}
		trial.Met = p99 <= objective && trial.Failed == 0 && r.Answered() > 0
		trials = append(trials, trial)
		if told != nil {
			told(trial)
		}
		sleep(ctx, settle)
		return r, trial.Met, ctx.Err()
	}
	met, missed := 0.0, 0.0
	for rate := l.Rate; met == 0 || missed == 0; {
		r, ok, err := try(rate, 1)
		if err == nil && !ok && r.Answered() > 0 {
			// Once more: a pause of the machine must not halve what is found.
			r, ok, err = try(rate, 1)
		}
		switch {
		case err != nil:
			return nil, trials, err
		case r.Answered() == 0 && r.Failed() > 0:
			return nil, trials, nil // a lower rate would not mend it
		case ok && rate*2 > maxRate:
			return nil, trials, fmt.Errorf("%g requests per second still meet the objective; want one that a rate up to %d misses", rate, maxRate)
		case ok:
			met = rate
			rate *= 2
		default:
			if missed == 0 {
				// If requests one after the other are too slow already, no rate helps.
				alone := l
				alone.Rate, alone.Clients, alone.Count, alone.Seconds = 0, 1, aloneCount, maxTrial
				if r, err = Run(ctx, t, alone); err != nil || r.Total.Quantile(0.5) > objective {
					return nil, trials, err
				}
			}
			missed = rate
			rate /= 2
		}
		if rate < 0.5 {
			return nil, trials, nil
		}
	}
	for missed/met > searchStep {
		// Halves the distance: near the limit the latency rises steeply, so that a
		// guess from its values would be no better.
		rate := (met + missed) / 2
		_, ok, err := try(rate, 1)
		switch {
		case err != nil:
			return nil, trials, err
		case ok:
			met = rate
		default:
			missed = rate
		}
	}
	for lower := 0.05; lower < 1; lower *= 2 {
		r, ok, err := try(met, 2)
		if err != nil || ok {
			return r, trials, err
		}
		met *= 1 - lower
	}
	return nil, trials, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
