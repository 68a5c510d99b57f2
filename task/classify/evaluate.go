package classify

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Metrics are the scores of a classifier.
type Metrics struct {
	Accuracy float64 `json:"accuracy"`      // share of texts whose label is predicted; with several labels, exactly all of them
	MacroF1  float64 `json:"macro_f1"`      // mean of F1 over the labels that occur
	MicroF1  float64 `json:"micro_f1"`      // F1 of the counts of all labels together
	Loss     float64 `json:"loss,omitzero"` // mean of -log (natural) of the probability of the labels, over texts whose labels the model has; absent if there are none
}

// ClassScore is the scores of one class.
type ClassScore struct {
	Class     string  `json:"class"`     // the label
	Precision float64 `json:"precision"` // share of the texts predicted to have the label that have it
	Recall    float64 `json:"recall"`    // share of the texts with the label for which it is predicted
	F1        float64 `json:"f1"`        // harmonic mean of precision and recall
	Texts     int     `json:"texts"`     // number of texts with the label
}

// Example is a text with its prediction.
type Example struct {
	Line        int      `json:"line"`        // line in its file, from 1
	Text        string   `json:"text"`        // the text
	Labels      []string `json:"labels"`      // the true labels
	Predicted   []string `json:"predicted"`   // the model's labels
	Probability float64  `json:"probability"` // of the predicted label; with several, of the least probable
	Loss        float64  `json:"loss"`        // -log probability of the label
}

// Evaluation is the scores of a classifier on labelled texts.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Metrics   Metrics            `json:"metrics"`             // the model's scores
	Baselines map[string]Metrics `json:"baselines"`           // majority: the labels' frequencies in training; linear: logistic regression on words and pairs of words; network: the network alone, if the linear method has a share in the model
	Texts     int                `json:"texts"`               // number of texts scored
	Classes   []ClassScore       `json:"classes"`             // scores by label
	Confusion [][]int            `json:"confusion,omitempty"` // [label][predicted], where a text has one label
	Unseen    map[string]int     `json:"unseen,omitempty"`    // texts by label, for labels that do not occur in training; they count as wrong
	Worst     []Example          `json:"worst"`               // the wrong predictions with the largest loss
	Share     float64            `json:"linear_share"`        // share of the linear method in the probabilities
	Verdict   string             `json:"verdict"`             // comparison with the linear method, in a sentence
	Notes     []string           `json:"notes,omitempty"`     // remarks on the result, a sentence each
}

// EvaluateOptions are the options of an evaluation; there are none yet.
type EvaluateOptions struct{}

// worst is the number of texts in Evaluation.Worst.
const worst = 20

// Evaluate scores the model on the labelled texts of a part, beside two
// baselines: the most frequent label and logistic regression on words and pairs
// of words. A part without texts is a *data.InputError; a cancelled ctx returns
// its error.
func (m *Model) Evaluate(ctx context.Context, d *Data, part task.Part, _ *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "classify: Evaluate")
	texts := d.Of(part)
	c, network, err := m.scored(ctx, d, texts)
	if err != nil {
		return nil, err
	}
	linear, p := m.linear.logProbabilities(c), network
	e := &Evaluation{Task: Name, Scored: d.Scored(part), Texts: c.len(), Unseen: c.unseen, Share: m.share, Baselines: map[string]Metrics{}}
	if m.share > 0 {
		p = m.mixed(network, linear)
		e.Baselines["network"], _ = m.score(network, c)
	}
	e.Metrics, e.Classes = m.score(p, c)
	e.Baselines["linear"], _ = m.score(linear, c)
	e.Baselines["majority"], _ = m.score(m.majority(c.len()), c)
	if !m.several() {
		e.Confusion = confusion(p, c.labels, len(m.classes))
	}
	e.Worst = m.worstOf(p, c, texts)
	e.Notes = append(slices.Clone(m.notes), unseenNote("texts scored", c.unseen)...)
	e.Notes = append(e.Notes, m.cutNote(c.cut)...)
	e.Verdict = verdict(e)
	return e, nil
}

// Tally returns the accuracy of [Model.Evaluate] by text: 1 or 0, and 1. Its errors are
// those of Evaluate.
func (m *Model) Tally(ctx context.Context, d *Data, part task.Part, _ *EvaluateOptions) (_ *task.Tally, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "classify: Tally")
	c, p, err := m.scored(ctx, d, d.Of(part))
	if err != nil {
		return nil, err
	}
	if m.share > 0 {
		p = m.mixed(p, m.linear.logProbabilities(c))
	}
	t := &task.Tally{Name: "accuracy", Higher: true, Of: func(s []float64) float64 { return s[0] / s[1] }}
	for i, row := range p {
		one := []float64{0, 1}
		if c.right(i, decide(row, m.several()), m.several()) {
			one[0] = 1
		}
		t.Rows = append(t.Rows, one)
	}
	return t, nil
}

// scored returns texts as a corpus and the network's log-probabilities for them.
func (m *Model) scored(ctx context.Context, d *Data, texts []data.Example) (*corpus, [][]float64, error) {
	if len(texts) == 0 {
		return nil, nil, data.InFile(d.file, data.Errorf("there is no text to score"))
	}
	c := encode(ctx, texts, m.tokenizer, m.cfg.Truncate, numbers(m.classes))
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	network, err := m.logProbabilities(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), c)
	return c, network, err
}

// verdict compares the network with the linear method in a sentence.
func verdict(e *Evaluation) string {
	linear, own := e.Baselines["linear"].Accuracy, e.Metrics.Accuracy
	n := float64(e.Texts)
	// The standard error of a difference of two shares of the same texts is at most this.
	noise := math.Sqrt((own*(1-own) + linear*(1-linear)) / n)
	switch {
	case own > linear+noise:
		return fmt.Sprintf("The model has an accuracy of %.1f %%, %.1f points more than the linear method.", 100*own, 100*(own-linear))
	case own < linear-noise:
		return fmt.Sprintf("The model has an accuracy of %.1f %%, the linear method %.1f %%: on these texts the linear method is better.", 100*own, 100*linear)
	case own == linear:
		return fmt.Sprintf("The model has an accuracy of %.1f %%, as the linear method.", 100*own)
	}
	return fmt.Sprintf("The model has an accuracy of %.1f %%, the linear method %.1f %%: with this number of texts the difference may be chance.", 100*own, 100*linear)
}

// majority returns log-probabilities [texts][classes]: the labels' frequencies in
// training.
func (m *Model) majority(texts int) [][]float64 {
	total := 0
	for _, n := range m.counts {
		total += n
	}
	p := make([]float64, len(m.classes))
	for k, n := range m.counts {
		p[k] = math.Log(float64(n) / float64(total))
	}
	out := make([][]float64, texts)
	for i := range out {
		out[i] = p
	}
	return out
}

// score returns the metrics and the table of classes for log-probabilities p
// [texts][classes]. A text with a label that does not occur in training counts as
// wrong, but not in the loss.
func (m *Model) score(p [][]float64, c *corpus) (Metrics, []ClassScore) {
	s := score(p, c, len(m.classes), m.several())
	for k := range s.classes {
		s.classes[k].Class = m.classes[k]
	}
	if m.several() || hasLabels(c) {
		s.Loss = meanLoss(p, c.labels, m.several())
	}
	return s.Metrics, s.classes
}

type scores struct {
	Metrics
	classes []ClassScore
}

// score counts right and wrong predictions. Labels that are not among the classes
// count as never predicted.
func score(p [][]float64, c *corpus, classes int, several bool) scores {
	right := 0
	hits, given, wanted := make([]int, classes), make([]int, classes), make([]int, classes)
	for i, row := range p {
		answer := decide(row, several)
		if c.right(i, answer, several) {
			right++
		}
		for _, k := range c.wanted(i, several) {
			wanted[k]++
			if slices.Contains(answer, k) {
				hits[k]++
			}
		}
		for _, k := range answer {
			given[k]++
		}
	}
	s := scores{classes: make([]ClassScore, classes)}
	s.Accuracy = ratio(right, len(p))
	sum, n := 0.0, len(c.unseen)
	var allHits, allGiven, allWanted int
	for _, texts := range c.unseen {
		allWanted += texts
	}
	for k := range classes {
		c := ClassScore{Precision: ratio(hits[k], given[k]), Recall: ratio(hits[k], wanted[k]), F1: ratio(2*hits[k], given[k]+wanted[k]), Texts: wanted[k]}
		s.classes[k] = c
		if given[k]+wanted[k] > 0 {
			sum += c.F1
			n++
		}
		allHits, allGiven, allWanted = allHits+hits[k], allGiven+given[k], allWanted+wanted[k]
	}
	if n > 0 {
		s.MacroF1 = sum / float64(n)
	}
	s.MicroF1 = ratio(2*allHits, allGiven+allWanted)
	return s
}

// wanted returns the classes of a text, ascending: the first of its labels, if several
// is not set.
func (c *corpus) wanted(i int, several bool) []int32 {
	sorted := slices.Sorted(slices.Values(c.labels[i]))
	if !several {
		sorted = sorted[:min(1, len(sorted))]
	}
	return sorted
}

// right reports whether an answer is all labels of a text, of which some may not be
// among the classes.
func (c *corpus) right(i int, answer []int32, several bool) bool {
	return slices.Equal(answer, c.wanted(i, several)) && !c.odd[i]
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// decide returns the predicted classes for log-probabilities, ascending: the most
// probable one or, if texts may have several, those with a probability above 0.5.
func decide(p []float64, several bool) []int32 {
	if !several {
		best := 0
		for k := range p {
			if p[k] > p[best] {
				best = k
			}
		}
		return []int32{int32(best)}
	}
	var list []int32
	for k, v := range p {
		if v > math.Log(0.5) {
			list = append(list, int32(k))
		}
	}
	return list
}

func confusion(p [][]float64, labels [][]int32, classes int) [][]int {
	table := make([][]int, classes)
	for k := range table {
		table[k] = make([]int, classes)
	}
	for i, row := range p {
		if len(labels[i]) > 0 {
			table[labels[i][0]][decide(row, false)[0]]++
		}
	}
	return table
}

// worstOf returns the wrong predictions with the largest loss.
func (m *Model) worstOf(p [][]float64, c *corpus, texts []data.Example) []Example {
	list := []Example{}
	for i, row := range p {
		answer := decide(row, m.several())
		e := Example{Line: texts[i].Line, Text: texts[i].Text, Labels: texts[i].Labels, Predicted: m.names(answer), Probability: certainty(row, answer)}
		if e.Loss = meanLoss(p[i:i+1], c.labels[i:i+1], m.several()); math.IsNaN(e.Loss) || slices.Equal(e.Predicted, e.Labels) {
			continue
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b Example) int { return cmp.Compare(b.Loss, a.Loss) })
	return list[:min(len(list), worst)]
}

func (m *Model) names(classes []int32) []string {
	names := make([]string, len(classes))
	for i, k := range classes {
		names[i] = m.classes[k]
	}
	return names
}

// certainty returns the least probability among the predicted classes.
func certainty(p []float64, answer []int32) float64 {
	least := 1.0
	for _, k := range answer {
		least = min(least, math.Exp(p[k]))
	}
	return least
}
