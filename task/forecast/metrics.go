package forecast

import (
	"encoding/json"
	"math"
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
		Pinball   *float64 `json:"pinball,omitempty"`
		WQL       *float64 `json:"wql,omitempty"`
		Coverage  *float64 `json:"coverage,omitempty"`
		Winkler   *float64 `json:"winkler,omitempty"`
	}
	return json.Marshal(fields{number(m.MSE), number(m.MAE), number(m.RMSE), number(m.MAPE), number(m.SMAPE), number(m.MASE), number(m.RMSSE), number(m.OWA),
		number(m.MSEScaled), number(m.MAEScaled), number(m.Pinball), number(m.WQL), number(m.Coverage), number(m.Winkler)})
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

	rmsse []mean // by series: squared errors in units of the seasonal naive forecast's
}

// add adds one value, its forecast and the scales of its series, which has a
// number. Missing values (NaN) are ignored.
func (s *score) add(series int, truth, forecast float64, fit *targetFit) {
	if math.IsNaN(truth) {
		return
	}
	e := forecast - truth
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
		s.rmsse[series].add(e / fit.SeasonalRMS * (e / fit.SeasonalRMS))
	}
	scale := fit.Deviation
	if scale == 0 {
		scale = 1
	}
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

func (s *score) metrics() Metrics {
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
		Pinball: s.pinball.value(), WQL: 2 * s.pinball.value() / s.size.value(), Coverage: s.covered.value(), Winkler: s.winkler.value(),
	}
}

// against returns the metrics with the OWA against those of naive2.
func (m Metrics) against(naive2 Metrics) Metrics {
	m.OWA = (m.SMAPE/naive2.SMAPE + m.MASE/naive2.MASE) / 2
	return m
}
