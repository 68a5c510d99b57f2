package translate

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Metrics are the scores of translations, in percent.
type Metrics struct {
	BLEU   float64 `json:"bleu"`           // as sacreBLEU computes it, on the tokens that the signature names
	CHRF   float64 `json:"chrf"`           // chrF2, likewise
	CHRFPP float64 `json:"chrf_plus_plus"` // chrF2++, likewise: chrF2 with n-grams of one and two words
}

// Signatures say how the metrics are computed, in the words of sacreBLEU's
// signatures.
type Signatures struct {
	BLEU   string `json:"bleu"`           // nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp, where tok is the tokenizer
	CHRF   string `json:"chrf"`           // nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no
	CHRFPP string `json:"chrf_plus_plus"` // nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no
}

func signatures(tokenizer string, lower bool) Signatures {
	letters := "mixed"
	if lower {
		letters = "lc"
	}
	ofRuns := func(wordOrder int) string {
		return fmt.Sprintf("nrefs:1|case:%s|eff:yes|nc:%d|nw:%d|space:no", letters, charOrder, wordOrder)
	}
	return Signatures{fmt.Sprintf("nrefs:1|case:%s|eff:no|tok:%s|smooth:exp", letters, tokenizer), ofRuns(0), ofRuns(maxWordOrder)}
}

// scored has translations and one reference for each.
type scored struct {
	texts []string
	lists [][]string
}

func pairUp(found []Translation, references []string) scored {
	s := scored{make([]string, len(found)), make([][]string, len(found))}
	for i := range found {
		s.texts[i], s.lists[i] = found[i].Text, references[i:i+1]
	}
	return s
}

func (s scored) bleu(tokenizer string, lower bool) *BLEUScore {
	return bleu(s.texts, s.lists, tokenizer, lower)
}
func (s scored) chrf(wordOrder int, lower bool) float64 {
	return chrf(s.texts, s.lists, wordOrder, lower)
}

// Evaluation is the scores of a model on pairs.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Metrics    Metrics       `json:"metrics"`         // the model's scores
	Sentences  int           `json:"sentences"`       // number of pairs scored
	Detail     string        `json:"detail"`          // BLEU with its components, in the format of sacreBLEU
	Signatures Signatures    `json:"signatures"`      // how the metrics are computed, as in sacreBLEU's signatures
	Lowercase  bool          `json:"lowercase"`       // the metrics are of lower-case texts
	Search     SearchOptions `json:"search"`          // options of the search
	ByLength   []LengthScore `json:"by_length"`       // scores by the length of the source
	Long       *LongScore    `json:"long,omitempty"`  // scores of long sources, if requested by long
	Notes      []string      `json:"notes,omitempty"` // remarks on the result, a sentence each

	Examples []Example `json:"-"` // examples for the report
}

// LengthScore is the score of the pairs whose source has From to To words.
type LengthScore struct {
	From      int     `json:"from"`      // fewest words of the source; where words are not separated, characters
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
	// Tokenizer "" is the model's setting, or is chosen for the references if that is empty too.
	Tokenizer string `json:"bleu_tokenizer" oneof:"(the model's),13a,intl,zh,char,none" group:"Scores" help:"sacreBLEU's tokenizer for BLEU"`
	Long      int    `json:"long" range:"0.." value:"n" group:"Search" help:"also score sources of n consecutive sentences: whole, in parts, and in parts with carry_state (0: not)"`
	Examples  int    `json:"-"` // pairs to show, chosen from the best, the middle and the worst; 0: none
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
	found, references, tokenizer, err := m.scored(ctx, d, part, o)
	if err != nil {
		return nil, err
	}
	e := &Evaluation{Task: Name, Scored: d.Scored(part), Sentences: len(found), Lowercase: m.lowercase(), Search: m.search(o.SearchOptions), Notes: m.Notes()}
	if empty := len(d.Of(part)) - len(found); empty > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("scored: %d pairs with an empty side are left out", empty))
	}
	e.fill(found, references, tokenizer, o.Examples)
	if o.Long > 1 {
		sources := make([]string, len(found))
		for i := range found {
			sources[i] = found[i].Source
		}
		e.Long, err = m.evaluateLong(ctx, sources, references, tokenizer, e.Search, o.Long)
	}
	return e, err
}

// Tally returns the BLEU of [Model.Evaluate] by pair: matches and totals of n-grams, and
// the lengths of translation and reference. Pairs with an empty side are left out. Its
// errors are those of Evaluate.
func (m *Model) Tally(ctx context.Context, d *Data, part task.Part, o *EvaluateOptions) (_ *task.Tally, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "translate: Tally")
	if o == nil {
		o = &EvaluateOptions{}
	}
	found, references, tokenizer, err := m.scored(ctx, d, part, o)
	if err != nil {
		return nil, err
	}
	t := &task.Tally{Name: "bleu", Higher: true, Of: func(s []float64) float64 {
		b := bleuOf(s)
		b.compute()
		return b.Score
	}}
	for i := range found {
		t.Rows = append(t.Rows, pairUp(found[i:i+1], references[i:i+1]).bleu(tokenizer, m.lowercase()).counts())
	}
	return t, nil
}

// scored translates the sources of a part. It also returns the references and the
// tokenizer of BLEU. Pairs with an empty side are left out.
func (m *Model) scored(ctx context.Context, d *Data, part task.Part, o *EvaluateOptions) (found []Translation, references []string, tokenizer string, err error) {
	var sources []string
	for _, p := range d.Of(part) {
		if m.cfg.spaced(p.Source) == "" || m.cfg.spaced(p.Target) == "" {
			continue
		}
		sources, references = append(sources, p.Source), append(references, p.Target)
	}
	if len(sources) == 0 {
		return nil, nil, "", data.InFile(d.file, data.Errorf("there is no pair of sentences to score"))
	}
	tokenizer = cmp.Or(o.Tokenizer, m.cfg.BLEUTokenizer, BLEUTokenizer(slices.Values(references)))
	if bleuTokenizers[tokenizer] == nil {
		return nil, nil, "", data.Setting(settings.Check(o))
	}
	found, err = m.Translate(ctx, sources, &PredictOptions{SearchOptions: m.search(o.SearchOptions), CarryState: o.CarryState, Attention: o.Examples > 0})
	return found, references, tokenizer, err
}

// lowercase reports whether scores are of lower-case texts.
func (m *Model) lowercase() bool { return m.cfg.Case == "lower" }

func (e *Evaluation) fill(found []Translation, references []string, tokenizer string, examples int) {
	s := pairUp(found, references)
	b := s.bleu(tokenizer, e.Lowercase)
	e.Metrics = Metrics{b.Score, s.chrf(0, e.Lowercase), s.chrf(maxWordOrder, e.Lowercase)}
	e.Detail, e.Signatures = b.String(), signatures(tokenizer, e.Lowercase)
	e.byLength(found, references, tokenizer)
	e.choose(found, references, examples)
}

// lengthSteps are the upper limits of the groups by length, in words.
var lengthSteps = []int{5, 10, 15, 20, 30, 50, 0}

func (e *Evaluation) byLength(found []Translation, references []string, tokenizer string) {
	length := sourceLength(found)
	from := 1
	for _, to := range lengthSteps {
		var texts []Translation
		var refs []string
		for i := range found {
			if n := length(found[i].Source); n >= from && (n <= to || to == 0) {
				texts, refs = append(texts, found[i]), append(refs, references[i])
			}
		}
		if len(texts) > 0 {
			e.ByLength = append(e.ByLength, LengthScore{from, to, len(texts), pairUp(texts, refs).bleu(tokenizer, e.Lowercase).Score})
		}
		from = to + 1
	}
}

// sourceLength returns a function that counts the words of a source, or its
// characters if the sources are in a script that separates no words.
func sourceLength(found []Translation) func(string) int {
	tokenizer := BLEUTokenizer(func(yield func(string) bool) {
		for i := range found {
			if !yield(found[i].Source) {
				return
			}
		}
	})
	if tokenizer == "13a" {
		tokenizer = "none"
	}
	return func(s string) int { return len(words(bleuTokenizers[tokenizer](s))) }
}

// choose selects examples evenly from the best to the worst.
func (e *Evaluation) choose(found []Translation, references []string, n int) {
	if n == 0 {
		return
	}
	all := make([]Example, len(found))
	for i, t := range found {
		all[i] = Example{t, references[i], chrf([]string{t.Text}, [][]string{references[i : i+1]}, 0, e.Lowercase)}
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
func (m *Model) evaluateLong(ctx context.Context, sources, references []string, tokenizer string, search SearchOptions, n int) (*LongScore, error) {
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
		*way.bleu = pairUp(found, refs).bleu(tokenizer, m.lowercase()).Score
	}
	return s, nil
}
