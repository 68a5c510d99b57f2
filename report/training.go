package report

import "fmt"

// Training is the history of a training run.
type Training struct {
	History   []Epoch
	ValMetric string // name of Epoch.Val, such as "val_mae"; "" is "validation metric"
	BestEpoch int    // the epoch whose weights were kept; 0: unknown
}

// Epoch is a line of the training history.
type Epoch struct {
	Epoch                       int
	LR, TrainLoss, ValLoss, Val float64 // a column of only zeros and NaN is not drawn
}

// column returns one number from each epoch; nil if all are zero or not finite.
func (t *Training) column(get func(Epoch) float64) []float64 {
	y := make([]float64, len(t.History))
	any := false
	for i, e := range t.History {
		y[i] = get(e)
		any = any || finite(y[i]) && y[i] != 0
	}
	if !any {
		return nil
	}
	return y
}

// wide reports whether all values are positive and their range is so large that a
// logarithmic axis shows more.
func wide(curves ...[]float64) bool {
	e := newExtent(false)
	for _, c := range curves {
		for _, v := range c {
			e.add(v)
		}
	}
	return e.any && e.lo > 0 && e.hi/e.lo > 20
}

// historyLines draws the columns of the history that are not nil over the epochs.
func (t *Training) historyLines(title, label string, curves []Series) *Figure {
	epochs := make([]float64, len(t.History))
	for i, e := range t.History {
		epochs[i] = float64(e.Epoch)
	}
	var kept []Series
	var values [][]float64
	for _, s := range curves {
		if s.Y == nil {
			continue
		}
		s.X = epochs
		kept = append(kept, s)
		values = append(values, s.Y)
	}
	if len(kept) == 0 {
		return nil
	}
	lines := &Lines{X: Axis{Label: "Epoch"}, Y: Axis{Label: label, Log: wide(values...)}, Series: kept}
	if t.BestEpoch > 0 {
		lines.Marks = []Mark{{X: float64(t.BestEpoch), Label: "best"}}
	}
	return &Figure{Title: title, Plot: lines}
}

// lossFigure draws the losses of training and validation over the epochs; nil if
// there are none.
func (t *Training) lossFigure() *Figure {
	return t.historyLines("Loss", "Loss", []Series{
		{Name: "Training", Y: t.column(func(e Epoch) float64 { return e.TrainLoss }), Color: Blue},
		{Name: "Validation", Y: t.column(func(e Epoch) float64 { return e.ValLoss }), Color: Orange},
	})
}

// Figure draws loss, validation metric and learning rate in one row; nil without
// a history.
func (t *Training) Figure() *Figure {
	name := t.ValMetric
	if name == "" {
		name = "validation metric"
	}
	var panels []*Figure
	for _, p := range []*Figure{
		t.lossFigure(),
		t.historyLines("Validation", name, []Series{
			{Name: name, Y: t.column(func(e Epoch) float64 { return e.Val }), Color: Orange}}),
		t.historyLines("Learning rate", "Learning rate", []Series{
			{Name: "Learning rate", Y: t.column(func(e Epoch) float64 { return e.LR }), Color: Green}}),
	} {
		if p != nil {
			panels = append(panels, p)
		}
	}
	if len(panels) == 0 {
		return nil
	}
	fig := &Figure{File: "loss.png", Plot: &Grid{Columns: len(panels), Figures: panels}}
	if len(panels) == 3 {
		for _, p := range panels {
			p.Width, p.Height = 350, 250 // as wide as a third of the page: text keeps its size
		}
	}
	last := t.History[len(t.History)-1]
	if finite(last.TrainLoss) && last.TrainLoss != 0 {
		fig.Caption = fmt.Sprintf("%d epochs; last training loss %s.", last.Epoch, Number(last.TrainLoss))
	}
	return fig
}
