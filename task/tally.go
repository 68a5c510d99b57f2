package task

// Tally is what each row of an evaluation contributes to the figure by which models of a
// task are compared. The figure is a function of sums over rows, so two models can be
// compared on the same rows, also drawn again and again as a bootstrap does.
type Tally struct {
	Name   string                       // of the figure, as the task's evaluation and its JSON name it
	Higher bool                         // whether more is better
	Rate   bool                         // a share of errors: the accuracy is 1 minus it
	Block  int                          // rows that follow each other and depend on each other, such as windows that overlap, which a bootstrap draws together; 0 means 1
	Rows   [][]float64                  // a sentence, window, utterance or stretch of text each, all of one length
	Of     func(sums []float64) float64 // the figure, of the sums of the columns of Rows
}

// Value returns the figure over all rows.
func (t *Tally) Value() float64 { return t.Of(t.sums(nil)) }

// sums returns the sums of the columns over the rows of a list, or over all rows if it is nil.
func (t *Tally) sums(list []int) []float64 {
	if len(t.Rows) == 0 {
		return nil
	}
	s := make([]float64, len(t.Rows[0]))
	add := func(row []float64) {
		for i, v := range row {
			s[i] += v
		}
	}
	if list == nil {
		for _, row := range t.Rows {
			add(row)
		}
	}
	for _, i := range list {
		add(t.Rows[i])
	}
	return s
}

// Resampled returns the figure over the rows of a list, in which a row may occur more than once.
func (t *Tally) Resampled(list []int) float64 { return t.Of(t.sums(list)) }
