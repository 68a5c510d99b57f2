package forecast

import (
	"encoding/json"
	"math"
)

// Metrics are the errors of a forecast over all windows, targets and steps.
// Metrics that the data leave undefined are NaN, and null in JSON.
type Metrics struct {
	MSE   float64 `json:"mse"`   // mean squared error, in the squared units of the data
	MAE   float64 `json:"mae"`   // mean absolute error, in the data's units
	RMSE  float64 `json:"rmse"`  // root of the mean squared error, in the data's units
	SMAPE float64 `json:"smape"` // 200·mean(|y-f|/(|y|+|f|)), in percent from 0 to 200; 0/0 counts as 0
	MASE  float64 `json:"mase"`  // mean absolute error divided by that of the one-step seasonal naive forecast in the training rows (Hyndman and Koehler 2006)

	MSEScaled float64 `json:"mse_scaled"` // mean squared error of values standardised by the training rows of their column
	MAEScaled float64 `json:"mae_scaled"` // mean absolute error of such values

	Pinball  float64 `json:"pinball,omitempty"`  // mean quantile loss over the levels of the intervals, in the data's units
	Coverage float64 `json:"coverage,omitempty"` // share of values within the outermost interval
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
		SMAPE     *float64 `json:"smape"`
		MASE      *float64 `json:"mase"`
		MSEScaled *float64 `json:"mse_scaled"`
		MAEScaled *float64 `json:"mae_scaled"`
		Pinball   *float64 `json:"pinball,omitempty"`
		Coverage  *float64 `json:"coverage,omitempty"`
	}
	return json.Marshal(fields{number(m.MSE), number(m.MAE), number(m.RMSE), number(m.SMAPE), number(m.MASE),
		number(m.MSEScaled), number(m.MAEScaled), number(m.Pinball), number(m.Coverage)})
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
	squared, absolute, smape, mase, squaredScaled, absoluteScaled, pinball, covered mean
}

// add adds one value, its forecast and its scales. Missing values (NaN) are
// ignored.
func (s *score) add(truth, forecast float64, fit *targetFit) {
	if math.IsNaN(truth) {
		return
	}
	e := forecast - truth
	s.squared.add(e * e)
	s.absolute.add(math.Abs(e))
	share := 0.0
	if size := math.Abs(truth) + math.Abs(forecast); size > 0 {
		share = 200 * math.Abs(e) / size
	}
	s.smape.add(share)
	if fit.Seasonal > 0 {
		s.mase.add(math.Abs(e) / fit.Seasonal)
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
	for i, q := range levels {
		e := truth - quantiles[i]
		s.pinball.add(math.Max(q*e, (q-1)*e))
	}
	inside := 0.0
	if quantiles[0] <= truth && truth <= quantiles[len(quantiles)-1] {
		inside = 1
	}
	s.covered.add(inside)
}

func (s *score) metrics() Metrics {
	return Metrics{
		MSE: s.squared.value(), MAE: s.absolute.value(), RMSE: math.Sqrt(s.squared.value()),
		SMAPE: s.smape.value(), MASE: s.mase.value(),
		MSEScaled: s.squaredScaled.value(), MAEScaled: s.absoluteScaled.value(),
		Pinball: s.pinball.value(), Coverage: s.covered.value(),
	}
}
