package tag

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Metrics are the scores of a tagger. Precision, recall and F1 are of spans, as
// conlleval counts them: a span is right if its borders and its label are. If
// tags mark no spans, all four are the share of tokens whose tag is right.
type Metrics struct {
	F1        float64 `json:"f1"`        // harmonic mean of precision and recall
	Precision float64 `json:"precision"` // share of the spans found that are right
	Recall    float64 `json:"recall"`    // share of the true spans that are found
	Accuracy  float64 `json:"accuracy"`  // share of tokens whose tag is right
}

// LabelScore is the scores of one label, in spans or, if tags mark no spans, in
// tokens.
type LabelScore struct {
	Label     string  `json:"label"`     // the label
	Precision float64 `json:"precision"` // share of those found that are right
	Recall    float64 `json:"recall"`    // share of the true ones that are found
	F1        float64 `json:"f1"`        // harmonic mean of precision and recall
	Gold      int     `json:"gold"`      // number of true ones
	Found     int     `json:"found"`     // number found by the model
	Right     int     `json:"right"`     // number of those found that are right
}

// Confusion counts tokens by their true label and the label found; "O" is outside
// of all spans.
type Confusion struct {
	Labels []string `json:"labels"` // of the rows and columns of counts
	Counts [][]int  `json:"counts"` // [true label][label found]
}

// Example is a sentence with its true and predicted tags.
type Example struct {
	Line   int      `json:"line"`   // where it begins in its file, from 1
	Tokens []string `json:"tokens"` // the tokens of the sentence
	Tags   []string `json:"tags"`   // the true tags
	Found  []string `json:"found"`  // the predicted tags
	Loss   float64  `json:"loss"`   // log of the ratio of the model's probabilities of the predicted and the true tags
}

// Evaluation is the scores of a tagger on tagged sentences.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Metrics   Metrics            `json:"metrics"`          // the model's scores
	Baselines map[string]Metrics `json:"baselines"`        // usual: the most frequent tag of each word in training
	Scheme    Scheme             `json:"scheme"`           // scheme of the tags: labels (no spans), iob1, iob2, bioes, bmes or bilou
	Sentences int                `json:"sentences"`        // number of sentences scored
	Tokens    int                `json:"tokens"`           // number of their tokens
	Unknown   int                `json:"unknown"`          // tokens whose word does not occur in training
	Labels    []LabelScore       `json:"labels"`           // scores by label
	Confusion Confusion          `json:"confusion"`        // confusion matrix of the tokens
	Unseen    map[string]int     `json:"unseen,omitempty"` // tokens by label, for labels that do not occur in training; they count as wrong
	Worst     []Example          `json:"worst"`            // the sentences with wrong tags and the largest loss
	Verdict   string             `json:"verdict"`          // comparison with the baseline, in a sentence
	Notes     []string           `json:"notes,omitempty"`  // remarks on the result, a sentence each
}

// EvaluateOptions are the options of an evaluation; there are none yet.
type EvaluateOptions struct{}

// Evaluate scores the model on the sentences of a part, beside each word's most
// frequent tag in training as a baseline. A part without sentences is a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Evaluate(ctx context.Context, of *Data, part task.Part, _ *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(of, "tag: Evaluate")
	sentences := of.Of(part)
	d, found, losses, err := m.decoded(ctx, of, sentences)
	if err != nil {
		return nil, err
	}
	scheme := m.schemeOf(d)
	e := &Evaluation{Task: Name, Scored: of.Scored(part), Scheme: scheme, Sentences: len(d.ends), Tokens: len(d.tokens), Baselines: map[string]Metrics{}, Unseen: m.unseen(d)}
	e.Metrics = m.score(d, found, e)
	usual, never := m.usual(d)
	e.Baselines["usual"], e.Unknown = m.score(d, usual, nil), never
	e.Worst = m.worst(d, found, losses, sentences)
	e.Notes = append(slices.Clone(m.notes), unseenNote("sentences scored", e.Unseen)...)
	if d.cut > 0 {
		e.Notes = append(e.Notes, cutNote(d.cut, m.cfg.PieceLength))
	}
	if d.schemes.scheme() == Labels && m.spans() && d.schemes.bare+d.schemes.labelled > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("sentences scored: some tags are not those of a span, the first of them %q in line %d; they count as O", d.odd, d.oddLine))
	}
	e.Verdict = m.verdict(e)
	return e, nil
}

// Tally returns the F1 of the spans of [Model.Evaluate], or the accuracy if tags mark no
// spans, by sentence: the numbers of true spans, or tokens, of those found and of those
// that are right. Its errors are those of Evaluate.
func (m *Model) Tally(ctx context.Context, of *Data, part task.Part, _ *EvaluateOptions) (_ *task.Tally, err error) {
	defer tensor.Recover(&err)
	task.NeedData(of, "tag: Tally")
	d, found, _, err := m.decoded(ctx, of, of.Of(part))
	if err != nil {
		return nil, err
	}
	t := &task.Tally{Name: "f1", Higher: true, Of: func(s []float64) float64 {
		_, _, f1 := counts{int(s[0]), int(s[1]), int(s[2])}.scores()
		return f1
	}}
	if !m.spans() {
		t.Name, t.Of = "accuracy", func(s []float64) float64 { return s[2] / s[0] }
	}
	scheme := m.schemeOf(d)
	for i := range d.ends {
		one := newTally()
		m.compare(one, d, i, found, scheme, nil)
		t.Rows = append(t.Rows, []float64{float64(one.all.gold), float64(one.all.found), float64(one.all.right)})
	}
	return t, nil
}

// decoded returns sentences as a corpus and what decodeScored returns of it.
func (m *Model) decoded(ctx context.Context, of *Data, sentences []data.Sentence) (d *corpus, found []int32, losses []float64, err error) {
	d, err = encode(ctx, sentences, m.cfg.PieceLength)
	if err == nil && len(d.tokens) == 0 {
		err = data.Errorf("there is no sentence to score")
	}
	if err != nil {
		return nil, nil, nil, data.InFile(of.file, err)
	}
	m.vocabularies.apply(d, &m.cfg)
	d.number(m.tags, m.spans())
	found, losses, err = m.decodeScored(ctx, d)
	return d, found, losses, err
}

// schemeOf returns the scheme of the tags of d: that of their file if it marks
// spans, or else that of the training file.
func (m *Model) schemeOf(d *corpus) Scheme {
	if s := d.schemes.scheme(); m.spans() && s != Labels {
		return s
	}
	return m.Scheme()
}

// decodeScored returns the most probable tags of d, and for each piece the log of
// the ratio of their probability to that of the true tags: infinite if a true tag
// does not occur in training.
func (m *Model) decodeScored(ctx context.Context, d *corpus) (found []int32, losses []float64, err error) {
	found, losses = make([]int32, len(d.tokens)), make([]float64, len(d.pieces))
	decoder := m.net.decoder(m.tags, m.spans())
	err = eachBatch(ctx, m, tensor.NewTape(m.slab.Device(), tensor.Infer), d, func(_ *batch, list []int, scores *tensor.Tensor) (result []float64) {
		m.eachPiece(d, list, scores.Data(), func(i int, scores []float32) {
			best, gold := decoder.Viterbi(scores), d.gold[d.pieces[i].from:d.pieces[i].to]
			loss := math.Inf(1)
			if !slices.Contains(gold, -1) {
				loss = decoder.Score(scores, best) - decoder.Score(scores, gold)
			}
			result = appendTags(append(result, loss), best)
		})
		return result
	}, func(list []int, result []float64) {
		for _, i := range list {
			losses[i] = result[0]
			result = takeTags(found, d.pieces[i], result[1:])
		}
	})
	return found, losses, err
}

// usual returns each word's most frequent tag in training, and the number of
// words that do not occur there.
func (m *Model) usual(d *corpus) (tags []int32, never int) {
	v := m.vocabularies
	tags = make([]int32, len(d.tokens))
	for i, w := range d.tokens {
		id := v.Words.ID(wordKey(d.words[w].text, &m.cfg))
		if tags[i] = v.Usual[id]; id == unknown {
			never++
		}
	}
	return tags, never
}

// counts are numbers of spans or tokens: true, found, and right.
type counts struct{ gold, found, right int }

func (c counts) scores() (precision, recall, f1 float64) {
	if c.found > 0 {
		precision = float64(c.right) / float64(c.found)
	}
	if c.gold > 0 {
		recall = float64(c.right) / float64(c.gold)
	}
	if c.right > 0 {
		f1 = 2 * precision * recall / (precision + recall)
	}
	return precision, recall, f1
}

// tally sums the counts by label.
type tally struct {
	all       counts // of spans or tokens
	labels    map[string]*counts
	matched   counts // of tags: gold is the number of tokens, right of those whose tag is right
	confusion map[[2]string]int
}

func newTally() *tally {
	return &tally{labels: map[string]*counts{}, confusion: map[[2]string]int{}}
}

func (t *tally) of(label string) *counts {
	c := t.labels[label]
	if c == nil {
		c = &counts{}
		t.labels[label] = c
	}
	return c
}

func (t *tally) gold(label string)  { t.all.gold++; t.of(label).gold++ }
func (t *tally) found(label string) { t.all.found++; t.of(label).found++ }
func (t *tally) right(label string) { t.all.right++; t.of(label).right++ }

// tokens compares the tags of a sentence. label, if not nil, returns the label of
// a tag, for the confusion matrix.
func (t *tally) tokens(gold, found []string, label func(string) string) {
	for k := range gold {
		t.matched.gold++
		if gold[k] == found[k] {
			t.matched.right++
		}
		if label != nil {
			t.confusion[[2]string{label(gold[k]), label(found[k])}]++
		}
	}
}

// alone counts the tokens of a sentence as if they were spans.
func (t *tally) alone(gold, found []string) {
	for k := range gold {
		t.gold(gold[k])
		t.found(found[k])
		if gold[k] == found[k] {
			t.right(gold[k])
		}
	}
}

func (t *tally) metrics() Metrics {
	p, r, f := t.all.scores()
	return Metrics{F1: f, Precision: p, Recall: r, Accuracy: float64(t.matched.right) / float64(max(1, t.matched.gold))}
}

// spans compares the spans of a sentence; found is in order.
func (t *tally) spans(gold, found []Span) {
	for _, s := range gold {
		t.gold(s.Label)
		if _, ok := slices.BinarySearchFunc(found, s, func(a, b Span) int { return cmp.Compare(a.From, b.From) }); ok && slices.Contains(found, s) {
			t.right(s.Label)
		}
	}
	for _, s := range found {
		t.found(s.Label)
	}
}

// score compares predicted tags with those of d, in the scheme of d, and fills in
// the tables of e, if it is not nil.
func (m *Model) score(d *corpus, found []int32, e *Evaluation) Metrics {
	t, scheme := newTally(), m.schemeOf(d)
	label := m.labelOf
	if e == nil {
		label = nil
	}
	for i := range d.ends {
		m.compare(t, d, i, found, scheme, label)
	}
	if e != nil {
		e.Labels, e.Confusion = t.table(), t.matrix()
	}
	return t.metrics()
}

// compare adds sentence i of d and its predicted tags to t.
func (m *Model) compare(t *tally, d *corpus, i int, found []int32, scheme Scheme, label func(string) string) {
	s := d.sentence(i)
	gold, ours := d.tagsOf(s), m.write(found[s.from:s.to], scheme)
	t.tokens(gold, ours, label)
	if m.spans() {
		t.spans(Spans(gold), Spans(ours))
	} else {
		t.alone(gold, ours)
	}
}

// table returns the scores by label, sorted by name.
func (t *tally) table() []LabelScore {
	var list []LabelScore
	for label, c := range t.labels {
		s := LabelScore{Label: label, Gold: c.gold, Found: c.found, Right: c.right}
		s.Precision, s.Recall, s.F1 = c.scores()
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b LabelScore) int { return cmp.Compare(a.Label, b.Label) })
	return list
}

// matrix returns the confusion matrix, sorted by label.
func (t *tally) matrix() Confusion {
	var labels []string
	for pair := range t.confusion {
		labels = append(labels, pair[0], pair[1])
	}
	slices.Sort(labels)
	labels = slices.Compact(labels)
	c := Confusion{Labels: labels, Counts: make([][]int, len(labels))}
	for i, gold := range labels {
		c.Counts[i] = make([]int, len(labels))
		for j, found := range labels {
			c.Counts[i][j] = t.confusion[[2]string{gold, found}]
		}
	}
	return c
}

// labelOf returns the label that a tag gives its token: that of the span, or the
// tag itself if tags mark no spans.
func (m *Model) labelOf(tag string) string {
	if !m.spans() {
		return tag
	}
	letter, label, ok := split(tag)
	switch {
	case !ok || letter == 'O':
		return Outside
	case label == "":
		return string(letter) // word segmentation: only the position in the word can be confused
	}
	return label
}

// unseen counts the tokens of d by label, for labels that do not occur in
// training.
func (m *Model) unseen(d *corpus) map[string]int {
	known := map[string]bool{Outside: m.spans()}
	for _, tag := range m.tags {
		known[m.labelOf(tag)] = true
	}
	var out map[string]int
	for _, k := range d.tags {
		label := m.labelOf(d.kinds[k])
		if known[label] {
			continue
		}
		if out == nil {
			out = map[string]int{}
		}
		out[label]++
	}
	return out
}

// unseenNote returns a note on labels that do not occur in training.
func unseenNote(where string, unseen map[string]int) []string {
	if len(unseen) == 0 {
		return nil
	}
	var names []string
	n := 0
	for name, count := range unseen {
		names = append(names, fmt.Sprintf("%q", name))
		n += count
	}
	slices.Sort(names)
	return []string{fmt.Sprintf("%s: %s with a label that does not occur in training (%s); they count as wrong", where, report.Plural(n, "token"), report.Listing(names))}
}

// mostWorst is the number of sentences in Evaluation.Worst.
const mostWorst = 20

// worst returns the sentences with wrong tags and the largest loss. Those with
// tags that do not occur in training are left out.
func (m *Model) worst(d *corpus, found []int32, losses []float64, sentences []data.Sentence) []Example {
	list := []Example{}
	scheme, at := m.schemeOf(d), 0
	for i := range d.ends {
		s := d.sentence(i)
		loss := 0.0
		for ; at < len(d.pieces) && d.pieces[at].to <= s.to; at++ {
			loss += losses[at]
		}
		e := Example{Line: sentences[i].Line, Tokens: sentences[i].Tokens, Tags: d.tagsOf(s), Found: m.write(found[s.from:s.to], scheme), Loss: loss}
		if slices.Equal(e.Tags, e.Found) || math.IsInf(loss, 0) || math.IsNaN(loss) {
			continue
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b Example) int { return cmp.Compare(b.Loss, a.Loss) })
	return list[:min(len(list), mostWorst)]
}

// verdict compares the model with the baseline in a sentence.
func (m *Model) verdict(e *Evaluation) string {
	own, usual, what := e.Metrics.F1, e.Baselines["usual"].F1, "an F1 of"
	if !m.spans() {
		own, usual, what = e.Metrics.Accuracy, e.Baselines["usual"].Accuracy, "an accuracy of"
	}
	then := ""
	if own <= usual {
		then = ": on these sentences the baseline is as good or better"
	}
	return fmt.Sprintf("The model has %s %.1f %%; the most frequent tag of each word has %.1f %%%s.", what, 100*own, 100*usual, then)
}
