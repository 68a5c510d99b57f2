package forecast

import (
	"fmt"
	"math"
)

// linearEnough is the share of the variance of the validation values that a ridge
// regression must explain so that a network without target history has a linear
// path: on less it has to unlearn the path before it learns the response.
const linearEnough = 0.95

// settleSkip decides about the linear path if that is left to the data.
func (d *dataset) settleSkip(r *ridge) (notes []string) {
	if d.cfg.Skip != "auto" {
		return nil
	}
	d.cfg.Skip = "ridge"
	if !d.cfg.NoTargetHistory {
		return nil
	}
	share := d.explained(r)
	if share >= linearEnough {
		return nil
	}
	d.cfg.Skip = "none"
	if math.IsNaN(share) {
		return []string{"without a validation part there is no linear path"}
	}
	return []string{fmt.Sprintf("there is no linear path, as a ridge regression has an NSE of %.2f on the validation part, less than %v", share, linearEnough)}
}

// explained returns the median over the series of the share of the variance of the
// validation values that a ridge regression explains; NaN if there are none.
func (d *dataset) explained(r *ridge) float64 {
	var s score
	list, _ := d.toScore(validationPart)
	linear := d.line(r)
	out := make([]float64, d.horizon)
	for _, w := range list {
		f := d.frames[w.frame]
		for k := range d.targets {
			linear(out, f, k, int(w.origin))
			for h, y := range out {
				if row := int(w.origin) + h; row < f.end {
					s.add(int(w.frame)*d.targets+k, f.raw[k][row], y, &f.fit[k])
				}
			}
		}
	}
	return median(s.series, (*moments).nse)
}
