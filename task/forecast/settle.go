package forecast

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
)

// settle sets sizes of cfg that are 0 to values that fit the data, divides every
// frame into parts, and returns notes on what a user might not expect. Series
// that are too short for one training window are left out.
func settle(cfg *Config, freq data.Freq, frames []*frame) (kept []*frame, notes []string, err error) {
	if err := divide(cfg.Split, frames); err != nil {
		return nil, nil, err
	}
	notes, err = settleSplit(cfg, frames)
	if err != nil {
		return nil, nil, err
	}
	notes = append(notes, settleSizes(cfg, freq, frames)...)
	left := 0
	for _, f := range frames {
		if f.part[trainPart].len() < cfg.Window+cfg.Horizon {
			left++
			continue
		}
		kept = append(kept, f)
	}
	if len(kept) == 0 {
		f := frames[0]
		return nil, nil, data.Errorf("%d training rows%s are too few for a window of %d and a horizon of %d, which need %d; give a smaller window or horizon, or more rows",
			f.part[trainPart].len(), ofSeries(f.id), cfg.Window, cfg.Horizon, cfg.Window+cfg.Horizon)
	}
	if left > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d series have fewer than %d training rows and were left out of training", left, len(frames), cfg.Window+cfg.Horizon))
	}
	return kept, notes, checkParts(cfg, kept)
}

// divide divides every frame into parts.
func divide(text string, frames []*frame) error {
	s, err := parseSplit(text)
	if err != nil {
		return err
	}
	for _, f := range frames {
		if f.part, err = s.rows(f.end, f.times); err != nil {
			return fmt.Errorf("%w%s", err, ofSeries(f.id))
		}
	}
	return nil
}

// settleSplit enlarges the validation and test parts to one horizon, if no split
// was given and the training part is long enough.
func settleSplit(cfg *Config, frames []*frame) (notes []string, err error) {
	if cfg.Split != "" {
		return nil, nil
	}
	cfg.Split = defaultSplit
	validation, test, train := typical(frames, validationPart), typical(frames, testPart), typical(frames, trainPart)
	spare := max(0, cfg.Horizon-validation) + max(0, cfg.Horizon-test)
	if spare == 0 || train-spare < 2*cfg.Horizon {
		return nil, nil
	}
	cfg.Split = fmt.Sprintf("rest,%d,%d", max(validation, cfg.Horizon), max(test, cfg.Horizon))
	return []string{"the split is " + cfg.Split + " rows, so that validation and test have one horizon"}, divide(cfg.Split, frames)
}

// checkParts returns an error if a part that is not empty is shorter than the
// horizon in every series.
func checkParts(cfg *Config, frames []*frame) error {
	for _, part := range []int{validationPart, testPart} {
		longest := 0
		for _, f := range frames {
			longest = max(longest, f.part[part].len())
		}
		if longest > 0 && longest < cfg.Horizon {
			return data.Errorf("horizon: %d is more than the %d rows of the %s part; give a smaller horizon, or another split", cfg.Horizon, longest, partNames[part])
		}
	}
	return nil
}

// settleSizes chooses window and horizon if they are 0.
func settleSizes(cfg *Config, freq data.Freq, frames []*frame) (notes []string) {
	window, horizon := customary(freq)
	if cfg.Horizon == 0 {
		cfg.Horizon = horizon
		for _, part := range []int{validationPart, testPart} {
			if n := typical(frames, part); n > 0 {
				cfg.Horizon = min(cfg.Horizon, n)
			}
		}
		cfg.Horizon = max(1, min(cfg.Horizon, typical(frames, trainPart)/3))
		if cfg.Horizon < horizon {
			notes = append(notes, fmt.Sprintf("the horizon is %d, as the series are too short for %d", cfg.Horizon, horizon))
		}
	}
	if cfg.Window == 0 {
		cfg.Window = max(window, cfg.Horizon)
		if most := (typical(frames, trainPart) - cfg.Horizon) * 2 / 3; cfg.Window > most {
			notes = append(notes, fmt.Sprintf("the window is %d rows, as the series are too short for %d", max(1, most), cfg.Window))
			cfg.Window = max(1, most)
		}
	}
	return notes
}

// customary returns the window and the horizon for long series of a frequency.
func customary(freq data.Freq) (window, horizon int) {
	switch {
	case freq.Unit != data.Month && freq.Unit != data.MonthEnd:
		return 72, 24
	case freq.N >= 12:
		return 12, 4
	case freq.N == 3:
		return 16, 4
	}
	return 36, 12
}

// typical returns the length of a part that nine of ten series reach.
func typical(frames []*frame, part int) int {
	var lengths []int
	for _, f := range frames {
		lengths = append(lengths, f.part[part].len())
	}
	slices.Sort(lengths)
	return lengths[len(lengths)/10]
}

// manyRows is about the largest number of training rows of the network per epoch
// by default.
const manyRows = 60000

// settleStride chooses the stride for a number of windows with rows rows each. It
// has no common factor with a season, so that windows begin at all phases.
func settleStride(cfg *Config, windows, rows int, seasons []int) {
	if cfg.WindowStride > 0 {
		return
	}
	shares := func(a, b int) bool {
		for b != 0 {
			a, b = b, a%b
		}
		return a > 1
	}
	for cfg.WindowStride = 1; windows*rows/cfg.WindowStride > manyRows; cfg.WindowStride++ {
	}
	for slices.ContainsFunc(seasons, func(season int) bool { return shares(season, cfg.WindowStride) }) {
		cfg.WindowStride++
	}
}

// settleTraining chooses the batch, the epochs and the patience if they are 0.
func settleTraining(cfg *Config, windows int) {
	if cfg.Batch == 0 {
		cfg.Batch = min(64, max(8, windows/16))
	}
	perEpoch := (windows + cfg.Batch - 1) / cfg.Batch
	cfg.FillDefaults(min(150, max(8, int(math.Round(3000/float64(perEpoch))))))
}
