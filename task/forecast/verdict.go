package forecast

import (
	"fmt"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/report"
)

// What a model forecasts with.
const (
	byNetwork = "network"                   // with its linear path, if it has one
	byLine    = "linear path"               // the linear path alone
	bySimple  = "mixture of simple methods" // without the network and its linear path
)

// forecaster returns what the model forecasts with.
func (m *Model) forecaster() string {
	switch {
	case m.mostOwn() == 0:
		return bySimple
	case m.gain == 0:
		return byLine
	}
	return byNetwork
}

// mostOwn returns the largest share of the network with its linear path in the forecast of
// the first target of a series.
func (m *Model) mostOwn() float64 {
	most := m.mixture.own(0)
	for id := range m.own {
		most = math.Max(most, mixture{m.parts(id, 0)}.own(0))
	}
	return most
}

// worthwhile is the least relative difference of two errors that counts.
const worthwhile = 0.005

// relation is how an error compares with another.
type relation int

const (
	unknown relation = iota // one of them is not a number
	better
	equal // to within worthwhile
	worse
)

// compare decides how an error compares with another. All that is said of two
// methods follows from it.
func compare(mine, other float64) relation {
	switch d := mine - other; {
	case math.IsNaN(d):
		return unknown
	case math.Abs(d) <= worthwhile*math.Max(mine, other):
		return equal
	case d < 0:
		return better
	}
	return worse
}

// measure returns the metric by which methods are compared, and its names:
// targets in different units have no common mean absolute error, unless each is
// divided by its standard deviation.
func (e *Evaluation) measure() (of func(Metrics) float64, short, long string) {
	if len(e.Targets) > 1 {
		return func(m Metrics) float64 { return m.MAEScaled }, "scaled MAE", "scaled mean absolute error"
	}
	return func(m Metrics) float64 { return m.MAE }, "MAE", "mean absolute error"
}

// verdict compares the model with each baseline.
func (e *Evaluation) verdict() string {
	of, _, long := e.measure()
	mine := of(e.Metrics)
	var lists [worse + 1][]string
	for _, name := range []string{"naive", "naive2", "seasonal_naive", "drift", "theta", "ets", "linear"} {
		b, ok := e.Baselines[name]
		if !ok || e.repeats(name) || e.knowsMore(name) {
			continue
		}
		label, other := strings.ReplaceAll(name, "_", " "), of(b)
		switch {
		case name == "seasonal_naive":
			label = fmt.Sprintf("seasonal naive (%d rows)", e.Season)
		case name == "linear" && e.Forecaster == byLine:
			label = "linear (ridge regression)"
		}
		r := compare(mine, other)
		switch r {
		case better:
			label += " by " + report.Percent(1-mine/other)
		case worse:
			label += ", which is " + report.Percent(1-other/mine) + " better"
		}
		lists[r] = append(lists[r], label)
	}
	var parts []string
	add := func(r relation, format, separator string) {
		if len(lists[r]) == 0 {
			return
		}
		subject := "It"
		if parts == nil {
			subject = fmt.Sprintf("In %s the %s", long, e.Forecaster)
		}
		parts = append(parts, subject+" is "+fmt.Sprintf(format, strings.Join(lists[r], separator))+".")
	}
	add(better, "better than %s", ", ")
	add(equal, "equal to %s to within "+strings.ReplaceAll(report.Percent(worthwhile), "%", "%%"), ", ")
	add(worse, "not better than %s", "; ")
	if e.Simulation {
		parts = append(parts, "The other methods have past values of the target, which this model does without.")
	} else if e.nothingBeatsNaive() {
		parts = append(parts, "No method is better than the naive forecast, which repeats the last value.")
	}
	return strings.Join(parts, " ")
}

// knowsMore reports whether a baseline has past values of the target and the model has
// none.
func (e *Evaluation) knowsMore(name string) bool { return e.Simulation && name != "linear" }

func (e *Evaluation) nothingBeatsNaive() bool {
	of, _, _ := e.measure()
	naive := of(e.Baselines["naive"])
	if r := compare(of(e.Metrics), naive); r == better || r == unknown {
		return false
	}
	for _, b := range e.Baselines {
		if compare(of(b), naive) == better {
			return false
		}
	}
	return true
}

// narrowBy is how much less than its nominal share an interval must cover at
// least to be called narrow, and narrowSigmas how many standard errors of a
// binomial share, so that few values do not decide.
const (
	narrowBy     = 0.05
	narrowSigmas = 2.5
)

// narrow returns a note if the intervals cover much less than their nominal share
// of n values, or "".
func (e *Evaluation) narrow(n int) string {
	claim, got := e.Nominal, e.Metrics.Coverage
	margin := math.Max(narrowBy, narrowSigmas*math.Sqrt(claim*(1-claim)/float64(n)))
	if !(got < claim-margin) {
		return ""
	}
	return fmt.Sprintf("the %s intervals cover %s of the values: they are too narrow for this part of the data", percentOf(claim), percentOf(got))
}

// percentOf formats a share with as few digits as it needs: "80 %".
func percentOf(share float64) string { return fmt.Sprintf("%g %%", math.Round(1000*share)/10) }
