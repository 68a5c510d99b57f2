package translate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Metrics are the scores of translations, in percent.
type Metrics struct {
	BLEU float64 `json:"bleu"` // as sacreBLEU computes it
	CHRF float64 `json:"chrf"` // chrF2, likewise
}

// score compares translations with one reference each.
func score(found []Translation, references []string, lower bool) Metrics {
	translations, lists := make([]string, len(found)), make([][]string, len(found))
	for i := range found {
		translations[i], lists[i] = found[i].Text, references[i:i+1]
	}
	return Metrics{bleu(translations, lists, lower).Score, chrf(translations, lists, lower)}
}

// Evaluation is the scores of a model on pairs.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Metrics   Metrics       `json:"metrics"`         // the model's scores
	Sentences int           `json:"sentences"`       // number of pairs scored
	Detail    string        `json:"detail"`          // BLEU with its components, in the format of sacreBLEU
	Lowercase bool          `json:"lowercase"`       // both metrics are of lower-case texts
	Search    SearchOptions `json:"search"`          // options of the search
	ByLength  []LengthScore `json:"by_length"`       // scores by the length of the source
	Long      *LongScore    `json:"long,omitempty"`  // scores of long sources, if requested by long
	Notes     []string      `json:"notes,omitempty"` // remarks on the result, a sentence each

	Examples []Example `json:"-"` // examples for the report
}

// LengthScore is the score of the pairs whose source has From to To words.
type LengthScore struct {
	From      int     `json:"from"`      // fewest words of the source
	To        int     `json:"to"`        // 0: no limit
	Sentences int     `json:"sentences"` // number of pairs
	BLEU      float64 `json:"bleu"`      // in percent
}

// Example is a translated pair.
type Example struct {
	Translation
	Reference string
	CHRF      float64 // of this sentence
}

// EvaluateOptions are options of an evaluation. nil, and search options with a Beam
// of 0, are those of the model's configuration.
type EvaluateOptions struct {
	SearchOptions
	CarryState bool `json:"carry_state" group:"Search" help:"the encoder begins each part of a long source with its state after the part before"`
	Long       int  `json:"long" range:"0.." value:"n" group:"Search" help:"also score sources of n consecutive sentences: whole, in parts, and in parts with carry_state (0: not)"`
	Examples   int  `json:"-"` // pairs to show, chosen from the best, the middle and the worst; 0: none
}

// Inherit sets the search options to the model's.
func (o *EvaluateOptions) Inherit(m task.Model, _ func(name string) bool) {
	o.SearchOptions = m.(*Model).cfg.SearchOptions
}

// ForReport sets the options for the report of a training: 12 examples, and
// sources of five consecutive sentences.
func (o *EvaluateOptions) ForReport() { o.Examples, o.Long = 12, 5 }

// Evaluate scores the model on the pairs of a part. Pairs with an empty side are
// left out and counted in a note. A model of lower-case texts is scored on
// lower-case texts. A part without pairs is a *data.InputError; a cancelled ctx
// returns its error.
func (m *Model) Evaluate(ctx context.Context, d *Data, part task.Part, o *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "translate: Evaluate")
	if o == nil {
		o = &EvaluateOptions{}
	}
	var sources, references []string
	empty := 0
	for _, p := range d.Of(part) {
		if m.cfg.spaced(p.Source) == "" || m.cfg.spaced(p.Target) == "" {
			empty++
			continue
		}
		sources, references = append(sources, p.Source), append(references, p.Target)
	}
	if len(sources) == 0 {
		return nil, data.InFile(d.file, data.Errorf("there is no pair of sentences to score"))
	}
	e := &Evaluation{Task: Name, Scored: d.Scored(part), Sentences: len(sources), Lowercase: m.cfg.Case == "lower", Search: m.search(o.SearchOptions), Notes: m.Notes()}
	if empty > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("scored: %d pairs with an empty side are left out", empty))
	}
	found, err := m.Translate(ctx, sources, &PredictOptions{SearchOptions: e.Search, CarryState: o.CarryState, Attention: o.Examples > 0})
	if err != nil {
		return nil, err
	}
	e.fill(found, references, o.Examples)
	if o.Long > 1 {
		e.Long, err = m.evaluateLong(ctx, sources, references, e.Search, o.Long)
	}
	return e, err
}

func (e *Evaluation) fill(found []Translation, references []string, examples int) {
	lists := make([][]string, len(found))
	texts := make([]string, len(found))
	for i := range found {
		texts[i], lists[i] = found[i].Text, references[i:i+1]
	}
	b := bleu(texts, lists, e.Lowercase)
	e.Metrics = Metrics{b.Score, chrf(texts, lists, e.Lowercase)}
	e.Detail = b.String()
	e.byLength(found, references)
	e.choose(found, references, examples)
}

// lengthSteps are the upper limits of the groups by length, in words.
var lengthSteps = []int{5, 10, 15, 20, 30, 50, 0}

func (e *Evaluation) byLength(found []Translation, references []string) {
	from := 1
	for _, to := range lengthSteps {
		var texts []Translation
		var refs []string
		for i := range found {
			if n := len(words(found[i].Source)); n >= from && (n <= to || to == 0) {
				texts, refs = append(texts, found[i]), append(refs, references[i])
			}
		}
		if len(texts) > 0 {
			e.ByLength = append(e.ByLength, LengthScore{from, to, len(texts), score(texts, refs, e.Lowercase).BLEU})
		}
		from = to + 1
	}
}

// choose selects examples evenly from the best to the worst.
func (e *Evaluation) choose(found []Translation, references []string, n int) {
	if n == 0 {
		return
	}
	all := make([]Example, len(found))
	for i, t := range found {
		all[i] = Example{t, references[i], chrf([]string{t.Text}, [][]string{references[i : i+1]}, e.Lowercase)}
	}
	slices.SortStableFunc(all, func(a, b Example) int { return cmp.Compare(b.CHRF, a.CHRF) })
	n = min(n, len(all))
	for k := range n {
		e.Examples = append(e.Examples, all[(2*k+1)*len(all)/(2*n)])
	}
}

// LongScore compares ways to translate long sources, which are consecutive
// sentences joined: as a whole, and in parts that end after sentences and
// clauses.
type LongScore struct {
	Sources     int     `json:"sources"`      // number of sources
	Joined      int     `json:"joined"`       // sentences per source
	PieceLength int     `json:"piece_length"` // largest number of tokens of a part
	Whole       float64 `json:"whole"`        // BLEU without division into parts
	Cut         float64 `json:"cut"`          // BLEU of parts translated independently
	Carried     float64 `json:"carried"`      // BLEU with the encoder's state carried from part to part
}

// evaluateLong joins n consecutive pairs at a time, and translates the sources
// each way.
func (m *Model) evaluateLong(ctx context.Context, sources, references []string, search SearchOptions, n int) (*LongScore, error) {
	s := &LongScore{Joined: n}
	var long, refs []string
	for i := 0; i+n <= len(sources); i += n {
		long, refs = append(long, join(sources[i:i+n])), append(refs, join(references[i:i+n]))
	}
	if len(long) == 0 {
		return nil, nil
	}
	s.Sources, s.PieceLength = len(long), m.most
	for _, way := range []struct {
		limit int
		carry bool
		bleu  *float64
	}{{mostTokens, false, &s.Whole}, {s.PieceLength, false, &s.Cut}, {s.PieceLength, true, &s.Carried}} {
		found, err := m.Translate(ctx, long, &PredictOptions{SearchOptions: search, PieceLength: way.limit, CarryState: way.carry})
		if err != nil {
			return nil, err
		}
		*way.bleu = score(found, refs, m.cfg.Case == "lower").BLEU
	}
	return s, nil
}

func words(s string) []string { return strings.FieldsFunc(s, isSpace) }
