package cli

import (
	"maps"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/train"
)

// trainingOf takes over the epochs of a run, with the validation metric that was
// in every record.
func trainingOf(r *train.Result) report.Training {
	metric := ""
	for _, r := range r.History {
		for _, name := range slices.Sorted(maps.Keys(r.Val)) {
			if metric == "" && name != "loss" {
				metric = name
			}
		}
	}
	value := func(r train.Record, name string) float64 {
		if v, ok := r.Val[name]; ok {
			return v
		}
		return math.NaN()
	}
	var t report.Training
	for _, r := range r.History {
		t.History = append(t.History, report.Epoch{
			Epoch: r.Epoch, LR: float64(r.LR), TrainLoss: r.TrainLoss, ValLoss: value(r, "loss"), Val: value(r, metric),
		})
	}
	if metric != "" {
		t.ValMetric = "val_" + metric
	}
	if r.Best != nil {
		t.BestEpoch = r.Best.Epoch
	}
	return t
}

// settingPairs lists the settings of a struct that have a value, in its order.
func settingPairs(ptr any) []report.Pair {
	var pairs []report.Pair
	for _, one := range settings.List(ptr) {
		if text := one.String(); text != "" && (one.IsBool() || !one.IsZero()) {
			pairs = append(pairs, report.Pair{Name: one.Flag(), Value: text})
		}
	}
	return pairs
}
