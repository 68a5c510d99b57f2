package forecast

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
)

// settle sets sizes of cfg that are 0 to values that fit the data, divides every
// frame into parts, and returns notes on what a user might not expect. Series
// that are too short for one training window are left out, as the empty ones are
// that have no frame.
func settle(cfg *Config, freq data.Freq, frames []*frame, empty []string) (kept []*frame, notes []string, err error) {
	if err := divide(cfg.Split, frames); err != nil {
		return nil, nil, err
	}
	notes, err = settleSplit(cfg, frames)
	if err != nil {
		return nil, nil, err
	}
	notes = append(notes, settleSizes(cfg, freq, frames)...)
	least := cfg.Window + cfg.Horizon
	var short, bare []string
	longest := frames[0]
	for _, f := range frames {
		rows := f.part[trainPart]
		if rows.len() > longest.part[trainPart].len() {
			longest = f
		}
		switch {
		case rows.len() < least:
			short = append(short, f.id)
		case !f.measured(rows):
			bare = append(bare, f.id)
		default:
			kept = append(kept, f)
		}
	}
	switch {
	case len(kept) > 0:
	case len(bare) > 0:
		return nil, nil, data.Errorf("%s: no training row%s has a value", joinAnd(cfg.columns()), ofSeries(bare[0]))
	default:
		return nil, nil, data.Errorf("%s%s are too few for a window of %d and a horizon of %d, which need %d; give a smaller window or horizon, or more rows",
			report.Plural(longest.part[trainPart].len(), "training row"), ofSeries(longest.id), cfg.Window, cfg.Horizon, least)
	}
	all := len(frames) + len(empty)
	for _, out := range []struct {
		series []string
		have   string
	}{{short, "fewer than " + report.Plural(least, "training row")}, {bare, "no value in the training rows"}, {empty, "no value"}} {
		if n := len(out.series); n > 0 {
			notes = append(notes, fmt.Sprintf("%d of %d series %s %s and %s left out of training: %s", n, all,
				agree(n, "has", "have"), out.have, agree(n, "was", "were"), report.Listing(out.series)))
		}
	}
	return kept, notes, checkParts(cfg, kept)
}

// measured reports whether some target has a value in the rows of a part.
func (f *frame) measured(part span) bool {
	return slices.ContainsFunc(f.raw, func(column []float64) bool {
		return slices.ContainsFunc(column[part.lo:part.hi], isMeasured)
	})
}

// agree returns the word that agrees with a count.
func agree(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// divide divides every frame into parts. A series that is too short for the split
// has the parts that there are rows for; if all are, the error is that of the
// longest.
func divide(text string, frames []*frame) error {
	s, err := parseSplit(text)
	if err != nil {
		return err
	}
	var first error
	longest := -1
	for _, f := range frames {
		part, err := s.rows(f.end, f.times)
		f.part, f.short = part, err != nil
		if err != nil && f.end > longest {
			first, longest = fmt.Errorf("%w%s", err, ofSeries(f.id)), f.end
		}
	}
	if slices.ContainsFunc(frames, func(f *frame) bool { return !f.short }) {
		return nil
	}
	return first
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
			return data.Errorf("horizon: %d is more than the %s of the %s part; give a smaller horizon, or another split", cfg.Horizon, report.Plural(longest, "row"), partNames[part])
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
			notes = append(notes, fmt.Sprintf("the window is %s, as the series are too short for %d", report.Plural(max(1, most), "row"), cfg.Window))
			cfg.Window = max(1, most)
		}
	}
	return notes
}

// The window of rows within the day has a day of them, within these bounds: the time of
// the network grows with the window.
const leastWindow, mostWindow = 72, 144

// customary returns the window and the horizon for long series of a frequency.
func customary(freq data.Freq) (window, horizon int) {
	switch {
	case freq.Unit != data.Month && freq.Unit != data.MonthEnd:
		window = leastWindow
		if seasons := freq.Seasons(); len(seasons) > 0 {
			window = min(max(window, seasons[0]), mostWindow)
		}
		return window, 24
	case freq.N >= 12:
		return 12, 4
	case freq.N == 3:
		return 16, 4
	}
	return 36, 12
}

// typical returns the length of a part that nine of ten series reach, of those
// that are not much too short: a few rows of one series do not decide the sizes for
// the others.
func typical(frames []*frame, part int) int {
	var all []*frame
	for _, f := range frames {
		if !f.short {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *frame) int { return cmp.Compare(a.end, b.end) })
	least := all[len(all)/2].end / 10
	var lengths []int
	for _, f := range all {
		if f.end >= least {
			lengths = append(lengths, f.part[part].len())
		}
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
	cfg.WindowStride = 1
	if cfg.NoTargetHistory { // neighbours differ in little but their first rows
		cfg.WindowStride = max(1, cfg.Horizon/4)
	}
	for ; windows*rows/cfg.WindowStride > manyRows; cfg.WindowStride++ {
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
