package forecast

import (
	"context"
	"fmt"
	"math"
)

// anchor mixes the best seasonal naive forecast into the model's forecast. If a
// series is short, or its season longer than the window, the last season may have
// information that the network could not learn; otherwise the share is 0. Season
// and share are chosen on the validation windows.
type anchor struct {
	Season int     `json:"season"` // rows; 0: none
	Share  float64 `json:"share"`  // of the seasonal naive forecast, in [0,1]
}

// settleAnchor chooses the season with the best forecasts of the validation
// windows, and the share of it that makes the model's forecasts best, reduced by
// its uncertainty.
func (m *Model) settleAnchor(ctx context.Context, d *dataset, valid []window) error {
	if m.cfg.Head == "autoregressive" || m.cfg.Loss == "negative-binomial" {
		return nil // their outputs are not locations
	}
	var best []pair
	least := math.Inf(1)
	for _, b := range d.baselines(nil, valid) {
		if b.season == 0 {
			continue
		}
		pairs, err := m.anchorPairs(ctx, d, valid, b)
		if err != nil {
			return err
		}
		sum := 0.0
		for _, p := range pairs {
			sum += p.loss(1, false)
		}
		if sum < least {
			least, best, m.anchor.Season = sum, pairs, b.season
		}
	}
	if best == nil {
		return nil
	}
	squared := m.cfg.Loss == "mse" || m.cfg.Loss == "gaussian"
	share := bestGain(best, squared)
	m.anchor.Share = math.Round(100*share*certainty(best, share, d.horizon, squared)) / 100
	if m.anchor.Share == 0 {
		m.anchor.Season = 0
		return nil
	}
	m.notes = append(m.notes, fmt.Sprintf("the seasonal naive forecast (%d rows) has a share of %.0f %% in the forecast, chosen on the validation part", m.anchor.Season, 100*m.anchor.Share))
	return nil
}

// anchorPairs returns the forecasts of a baseline and of the model.
func (m *Model) anchorPairs(ctx context.Context, d *dataset, valid []window, b baseline) ([]pair, error) {
	var pairs []pair
	simple := make([]float64, d.horizon)
	err := m.forecastAll(ctx, d, valid, nil, func(w window, k int, s *steps) {
		f := d.frames[w.frame]
		scale := f.fit[k].Deviation
		if scale == 0 {
			scale = 1
		}
		b.forecast(simple, f, k, int(w.origin))
		for h, y := range s.point {
			if row := int(w.origin) + h; row < f.end && !math.IsNaN(f.raw[k][row]) {
				pairs = append(pairs, pair{window: w, truth: f.raw[k][row] / scale, full: simple[h] / scale, line: y / scale})
			}
		}
	})
	return pairs, err
}

// lean shifts the outputs of one target of one window [horizon,outputs] so that
// their middle, in the data's units, is the mixture. Quantiles keep their
// distances from it; a scale is unchanged. scratch is [horizon].
func (m *Model) lean(out []float32, scratch []float64, f *frame, k, origin int, u units) {
	if m.anchor.Share == 0 {
		return
	}
	outputs, locations := len(out)/len(scratch), 1
	if m.cfg.Loss == "quantile" {
		locations = outputs
	}
	seasonal(scratch, f, k, origin, m.anchor.Season)
	for h, y := range scratch {
		o := out[h*outputs:][:locations]
		middle := float64(o[len(o)/2])
		mixed := (1-m.anchor.Share)*u.out(middle) + m.anchor.Share*y
		shift := float32(u.in(mixed) - middle)
		for j := range o {
			o[j] += shift
		}
	}
}
