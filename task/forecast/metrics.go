package forecast

import (
	"encoding/json"
	"math"
	"slices"
)

// Metrics are the errors of a forecast over all windows, targets and steps.
// Values that are missing or were filled in are not scored. Metrics that the data
// leave undefined are NaN, and null in JSON.
type Metrics struct {
	MSE   float64 `json:"mse"`           // mean squared error, in the squared units of the data
	MAE   float64 `json:"mae"`           // mean absolute error, in the data's units
	RMSE  float64 `json:"rmse"`          // root of the mean squared error, in the data's units
	MAPE  float64 `json:"mape"`          // 100·mean(|y-f|/|y|), in percent, over the values that are not 0
	SMAPE float64 `json:"smape"`         // 200·mean(|y-f|/(|y|+|f|)), in percent from 0 to 200; 0/0 counts as 0
	MASE  float64 `json:"mase"`          // mean absolute error divided by that of the seasonal naive forecast, mase_season rows before, within the training rows (Hyndman and Koehler 2006; M4 also has the validation rows in this divisor)
	RMSSE float64 `json:"rmsse"`         // likewise with squared errors: for each series the root of the mean squared error divided by that of the same seasonal naive forecast, and the mean of the series (M5 has season 1)
	OWA   float64 `json:"owa,omitempty"` // M4's overall weighted average: the mean of smape and mase, each divided by that of the baseline naive2; of targets and series it is absent

	MSEScaled float64 `json:"mse_scaled"` // mean squared error of values standardised by the training rows of their column
	MAEScaled float64 `json:"mae_scaled"` // mean absolute error of such values

	// Of single series and targets, and for several the median over them.
	NSE float64 `json:"nse"` // Nash and Sutcliffe's efficiency, 1-sum((y-f)²)/sum((y-mean(y))²): 1 is perfect, 0 as good as the mean of the values scored
	KGE float64 `json:"kge"` // Kling and Gupta's efficiency of 2009, 1 minus the distance of (correlation, ratio of standard deviations f to y, ratio of means f to y) from (1,1,1); 1 is perfect

	CRPS     float64 `json:"crps"`               // continuous ranked probability score, in the data's units: twice the mean quantile loss over the levels 0.025, 0.075, ..., 0.975, with the outermost trained quantiles beyond these; a forecast without intervals has its mean absolute error
	Pinball  float64 `json:"pinball,omitempty"`  // mean quantile loss over the levels of the intervals, in the data's units; absent without intervals, as what follows
	WQL      float64 `json:"wql,omitempty"`      // weighted quantile loss: twice pinball, which estimates the CRPS, divided by the mean of |y| (GluonTS's mean_wQuantileLoss)
	Coverage float64 `json:"coverage,omitempty"` // share of values within the outermost interval
	Winkler  float64 `json:"winkler,omitempty"`  // mean interval score of the outermost interval: its width, and for a value outside its distance divided by the probability of that side
}

// MarshalJSON writes NaN as null, and omits the metrics of intervals if the
// forecast has none. The error is always nil.
func (m Metrics) MarshalJSON() ([]byte, error) {
	number := func(x float64) *float64 {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil
		}
		return &x
	}
	type fields struct {
		MSE       *float64 `json:"mse"`
		MAE       *float64 `json:"mae"`
		RMSE      *float64 `json:"rmse"`
		MAPE      *float64 `json:"mape"`
		SMAPE     *float64 `json:"smape"`
		MASE      *float64 `json:"mase"`
		RMSSE     *float64 `json:"rmsse"`
		OWA       *float64 `json:"owa,omitempty"`
		MSEScaled *float64 `json:"mse_scaled"`
		MAEScaled *float64 `json:"mae_scaled"`
		NSE       *float64 `json:"nse"`
		KGE       *float64 `json:"kge"`
		CRPS      *float64 `json:"crps"`
		Pinball   *float64 `json:"pinball,omitempty"`
		WQL       *float64 `json:"wql,omitempty"`
		Coverage  *float64 `json:"coverage,omitempty"`
		Winkler   *float64 `json:"winkler,omitempty"`
	}
	return json.Marshal(fields{number(m.MSE), number(m.MAE), number(m.RMSE), number(m.MAPE), number(m.SMAPE), number(m.MASE), number(m.RMSSE), number(m.OWA),
		number(m.MSEScaled), number(m.MAEScaled), number(m.NSE), number(m.KGE), number(m.CRPS), number(m.Pinball), number(m.WQL), number(m.Coverage), number(m.Winkler)})
}

// mean is a running mean.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(x float64) {
	m.sum += x
	m.n++
}

// value returns the mean; NaN if there are no values.
func (m *mean) value() float64 { return m.sum / float64(m.n) }

// score sums Metrics value by value.
type score struct {
	squared, absolute, percent, smape, mase, squaredScaled, absoluteScaled mean

	size, pinball, covered, winkler mean // size: of the values with quantiles

	crps mean // of values with a distribution

	rmsse  []mean    // by series: squared errors in units of the seasonal naive forecast's
	series []moments // by series and target
}

// moments sums the values y of a series and their forecasts f up to their second
// moments, around running means, so that it loses no digits to a large mean.
type moments struct {
	n                              float64
	y, f                           float64 // means
	varY, varF, covariance, errors float64 // sums of squares
}

func (m *moments) add(y, f float64) {
	m.n++
	dy, df := y-m.y, f-m.f
	m.y += dy / m.n
	m.f += df / m.n
	m.varY += dy * (y - m.y)
	m.varF += df * (f - m.f)
	m.covariance += dy * (f - m.f)
	m.errors += (y - f) * (y - f)
}

// nse returns the Nash-Sutcliffe efficiency; NaN for values that do not vary.
func (m *moments) nse() float64 {
	if !(m.varY > 0) {
		return math.NaN()
	}
	return 1 - m.errors/m.varY
}

// kge returns the Kling-Gupta efficiency (Gupta et al. 2009); NaN for values that do
// not vary or have the mean 0. Forecasts that do not vary are uncorrelated.
func (m *moments) kge() float64 {
	if !(m.varY > 0) || m.y == 0 {
		return math.NaN()
	}
	r := 0.0
	if m.varF > 0 {
		r = m.covariance / math.Sqrt(m.varY*m.varF)
	}
	return 1 - math.Sqrt((r-1)*(r-1)+sq(math.Sqrt(m.varF/m.varY)-1)+sq(m.f/m.y-1))
}

func sq(x float64) float64 { return x * x }

// median returns the median of a value of those moments that have it; NaN if none
// has.
func median(all []moments, of func(*moments) float64) float64 {
	var x []float64
	for i := range all {
		if v := of(&all[i]); !math.IsNaN(v) {
			x = append(x, v)
		}
	}
	if len(x) == 0 {
		return math.NaN()
	}
	slices.Sort(x)
	return sortedQuantile(x, 0.5)
}

// add adds one value, its forecast and the scales of its series, which has a
// number. Missing values (NaN) are ignored.
func (s *score) add(series int, truth, forecast float64, fit *targetFit) {
	if math.IsNaN(truth) {
		return
	}
	e := forecast - truth
	for len(s.series) <= series {
		s.series = append(s.series, moments{})
	}
	s.series[series].add(truth, forecast)
	s.squared.add(e * e)
	s.absolute.add(math.Abs(e))
	if truth != 0 {
		s.percent.add(100 * math.Abs(e/truth))
	}
	share := 0.0
	if size := math.Abs(truth) + math.Abs(forecast); size > 0 {
		share = 200 * math.Abs(e) / size
	}
	s.smape.add(share)
	if fit.Seasonal > 0 {
		s.mase.add(math.Abs(e) / fit.Seasonal)
	}
	if fit.SeasonalRMS > 0 {
		for len(s.rmsse) <= series {
			s.rmsse = append(s.rmsse, mean{})
		}
		s.rmsse[series].add(sq(e / fit.SeasonalRMS))
	}
	scale := fit.unit()
	s.squaredScaled.add(e * e / (scale * scale))
	s.absoluteScaled.add(math.Abs(e) / scale)
}

// addQuantiles adds the quantiles of a value's forecast, ascending.
func (s *score) addQuantiles(truth float64, levels, quantiles []float64) {
	if math.IsNaN(truth) || len(levels) == 0 {
		return
	}
	s.size.add(math.Abs(truth))
	for i, q := range levels {
		e := truth - quantiles[i]
		s.pinball.add(math.Max(q*e, (q-1)*e))
	}
	last := len(levels) - 1
	if last == 0 {
		return // a quantile alone is no interval
	}
	low, high, inside := quantiles[0], quantiles[last], 0.0
	if low <= truth && truth <= high {
		inside = 1
	}
	s.covered.add(inside)
	s.winkler.add(high - low + math.Max(0, low-truth)/levels[0] + math.Max(0, truth-high)/(1-levels[last]))
}

// crpsLevels are the levels of which the mean quantile loss estimates half the CRPS,
// its integral over all levels, by the midpoint rule.
var crpsLevels = func() []float64 {
	levels := make([]float64, 20)
	for i := range levels {
		levels[i] = (float64(i) + 0.5) / float64(len(levels))
	}
	return levels
}()

// addCRPS adds the quantiles of crpsLevels of a value's forecast.
func (s *score) addCRPS(truth float64, quantiles []float64) {
	sum := 0.0
	for i, q := range crpsLevels {
		e := truth - quantiles[i]
		sum += math.Max(q*e, (q-1)*e)
	}
	s.crps.add(2 * sum / float64(len(crpsLevels)))
}

func (s *score) metrics() Metrics {
	crps := s.crps.value()
	if s.crps.n == 0 {
		crps = s.absolute.value()
	}
	var rmsse mean
	for i := range s.rmsse {
		if s.rmsse[i].n > 0 {
			rmsse.add(math.Sqrt(s.rmsse[i].value()))
		}
	}
	return Metrics{
		MSE: s.squared.value(), MAE: s.absolute.value(), RMSE: math.Sqrt(s.squared.value()),
		MAPE: s.percent.value(), SMAPE: s.smape.value(), MASE: s.mase.value(), RMSSE: rmsse.value(), OWA: math.NaN(),
		MSEScaled: s.squaredScaled.value(), MAEScaled: s.absoluteScaled.value(),
		NSE: median(s.series, (*moments).nse), KGE: median(s.series, (*moments).kge), CRPS: crps,
		Pinball: s.pinball.value(), WQL: 2 * s.pinball.value() / s.size.value(), Coverage: s.covered.value(), Winkler: s.winkler.value(),
	}
}

// against returns the metrics with the OWA against those of naive2.
func (m Metrics) against(naive2 Metrics) Metrics {
	m.OWA = (m.SMAPE/naive2.SMAPE + m.MASE/naive2.MASE) / 2
	return m
}
