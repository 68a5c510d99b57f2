package transcribe

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Metrics are errors for each word, and for each character or symbol, of the
// references.
type Metrics struct {
	WER float64 `json:"wer"` // errors for each word of the references; 0.1 is 10 %
	CER float64 `json:"cer"` // errors for each character or symbol of the references
}

// Evaluation is how a model's texts differ from those of a manifest.
type Evaluation struct {
	Task       string    `json:"task"`             // the task of the model
	Metrics    Metrics   `json:"metrics"`          // the model's scores
	Greedy     *Metrics  `json:"greedy,omitempty"` // without language model and lexicon, where Metrics are with them
	Words      Errors    `json:"words"`            // differences counted in words
	Units      Errors    `json:"units"`            // differences counted in characters or symbols
	Utterances int       `json:"utterances"`       // how many were scored
	Exact      int       `json:"exact"`            // of them without any error
	Seconds    float64   `json:"seconds"`          // of sound
	Taken      float64   `json:"taken"`            // seconds to transcribe it, reading not counted
	Notes      []string  `json:"notes,omitempty"`  // what to know of the result, a sentence each
	Results    []*Result `json:"-"`                // in the order of the manifest
}

// Result is one utterance.
type Result struct {
	speech.Utterance
	Transcript *Transcript
	Pairs      []Pair // the words, aligned
	Words      Errors
	Units      Errors
}

// EvaluateOptions says how to decode; nil is as the model does ([Model.Decoding]),
// the zero value is greedy.
type EvaluateOptions struct {
	Greedy      bool   `json:"greedy" group:"Decoding" help:"take the likeliest token of each step, whatever the model has for decoding"`
	LMFile      string `json:"lm" value:"file" group:"Decoding" help:"language model in ARPA format (empty: the model's)"`
	LexiconFile string `json:"lexicon" value:"file" group:"Decoding" help:"file of the only words allowed (empty: the model's)"`
	Decoding

	given func(setting string) bool // by the user; nil where Inherit was not called
}

// Inherit is [task.Inheritor]: the options become the model's own decoding, with
// the default weights for what the user gives.
func (o *EvaluateOptions) Inherit(m task.Model, given func(string) bool) {
	o.Decoding, o.given = *m.(*Model).Decoding(), given
	if given("lm") {
		o.LMTokens, o.LMWeight, o.WordBonus = false, DefaultLMWeight, DefaultWordBonus
	}
	if given("hot_words") {
		o.HotWeight = DefaultHotWeight
	}
}

// Validate reports options that do not go together; it is a *data.InputError.
func (o *EvaluateOptions) Validate() error { return o.validate(o) }

// validate is Validate of options, whose part for decoding is o.
func (o *EvaluateOptions) validate(options any) error {
	if err := settings.Check(options); err != nil {
		return data.Setting(err)
	}
	given := func(names ...string) bool { return o.given != nil && slices.ContainsFunc(names, o.given) }
	lm := o.LM != nil || o.LMFile != ""
	switch {
	case o.Greedy:
		for _, one := range settings.List(options) {
			if one.Group == "Decoding" && one.Name != "greedy" && given(one.Name) {
				return data.Errorf("--greedy and --%s exclude each other", one.Flag())
			}
		}
	case given("hot_weight") && len(o.HotWords) == 0:
		return data.Errorf("--hot-weight: needs --hot-words")
	case !lm && given("lm_weight", "lm_tokens"):
		return data.Errorf("--lm-weight and --lm-tokens need a language model; name its file with --lm")
	case given("word_bonus") && !lm && o.Lexicon == nil && o.LexiconFile == "" && o.Beam == 0 && len(o.HotWords) == 0 && !given("n_best"):
		return data.Errorf("--word-bonus: counts in a search; give --beam, --lm or --lexicon")
	}
	return nil
}

// Evaluate transcribes a part of the data and counts the errors; where the decoding
// is not greedy the rates of greedy decoding are given too. A part without
// utterances, and options that the model cannot follow, are a *data.InputError.
func (m *Model) Evaluate(ctx context.Context, d *Data, part task.Part, o *EvaluateOptions) (*Evaluation, error) {
	decoding, err := m.decodingOf(o)
	if err != nil {
		return nil, err
	}
	list := d.Of(part)
	if len(list) == 0 {
		return nil, data.Errorf("there is no utterance to score")
	}
	begun := time.Now()
	all, reading, err := m.emissions(ctx, d, list)
	if err != nil {
		return nil, err
	}
	e, err := m.score(ctx, all, decoding)
	if err != nil {
		return nil, err
	}
	e.Taken = (time.Since(begun) - reading).Seconds()
	if decoding.searches() {
		g, err := m.score(ctx, all, &Decoding{})
		if err != nil {
			return nil, err
		}
		e.Greedy = &g.Metrics
	}
	e.Notes = append(m.unknownUnits(list), decoding.lacking(list, "texts")...)
	return e, nil
}

// emissions are the log probabilities of the classes at each step of an utterance.
type emissions struct {
	speech.Utterance
	rows    [][]float64
	seconds float64
}

// unknownUnits notes what the texts have that the network cannot spell.
func (m *Model) unknownUnits(list []speech.Utterance) []string {
	var names []string
	n := 0
	for _, u := range list {
		_, unknown := m.alphabet.encode(u.Text)
		n += len(unknown)
		for _, p := range unknown {
			if q := fmt.Sprintf("%q", p); !slices.Contains(names, q) {
				names = append(names, q)
			}
		}
	}
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the model cannot spell %s of the texts, each of which counts as an error: %s", report.Plural(n, "unit"), report.Listing(names))}
}

// emissions runs the network over utterances of the data and says how long reading
// took.
func (m *Model) emissions(ctx context.Context, d *Data, list []speech.Utterance) ([]emissions, time.Duration, error) {
	begun := time.Now()
	c, err := m.frontend.Dataset(ctx, list, d)
	if err != nil {
		return nil, 0, err
	}
	reading := time.Since(begun)
	all := make([]emissions, len(list))
	err = c.Each(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), m.net, func(samples []int, b *speech.Batch, logits *tensor.Tensor) {
		rows := logRows(logits.Data(), m.alphabet.classes())
		for k, s := range samples {
			all[s] = emissions{list[s], rows[k*b.Steps:][:b.Lengths[k]], c.Duration(s)}
		}
	})
	return all, reading, err
}

// score decodes and counts.
func (m *Model) score(ctx context.Context, all []emissions, d *Decoding) (*Evaluation, error) {
	e := &Evaluation{Task: Name, Utterances: len(all)}
	for _, u := range all {
		t, err := m.decode(ctx, u.rows, d, u.seconds)
		if err != nil {
			return nil, err
		}
		r := &Result{Utterance: u.Utterance, Transcript: t}
		r.Pairs, r.Words = Align(strings.Fields(u.Text), strings.Fields(t.Text))
		_, r.Units = Align(letters(m.alphabet.Kind, u.Text), letters(m.alphabet.Kind, t.Text))
		e.Words.add(r.Words)
		e.Units.add(r.Units)
		e.Seconds += u.seconds
		if r.Units.Total() == 0 {
			e.Exact++
		}
		e.Results = append(e.Results, r)
	}
	e.Metrics = Metrics{e.Words.Rate(), e.Units.Rate()}
	return e, nil
}

// Worst is the n results with the most word errors for their length.
func (e *Evaluation) Worst(n int) []*Result {
	list := slices.Clone(e.Results)
	slices.SortStableFunc(list, func(a, b *Result) int {
		return cmp.Or(cmp.Compare(b.Words.Rate(), a.Words.Rate()), cmp.Compare(b.Units.Total(), a.Units.Total()))
	})
	return list[:min(n, len(list))]
}

// Confusion is a word that was taken for another, or missed (Hypothesis ""), or
// made up (Reference "").
type Confusion struct {
	Pair
	Times int `json:"times"` // how often
}

// Confusions lists the most frequent errors first.
func (e *Evaluation) Confusions(n int) []Confusion {
	times := map[Pair]int{}
	for _, r := range e.Results {
		for _, p := range r.Pairs {
			if p.Reference != p.Hypothesis {
				times[p]++
			}
		}
	}
	var list []Confusion
	for p, k := range times {
		list = append(list, Confusion{p, k})
	}
	slices.SortFunc(list, func(a, b Confusion) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(a.Reference, b.Reference), cmp.Compare(a.Hypothesis, b.Hypothesis))
	})
	return list[:min(n, len(list))]
}

// Tune finds the weight of a decoding's language model and the bonus of words that
// make the fewest word errors in a part of the data, which must not be that which
// the result is later judged by. It changes the decoding, and returns the error
// rates before and after.
func (m *Model) Tune(ctx context.Context, d *Data, part task.Part, decoding *Decoding) (before, after Metrics, err error) {
	if err := decoding.check(m.alphabet); err != nil {
		return before, after, err
	}
	return m.tune(ctx, d, d.Of(part), decoding)
}

func (m *Model) tune(ctx context.Context, from *Data, list []speech.Utterance, d *Decoding) (before, after Metrics, err error) {
	all, _, err := m.emissions(ctx, from, list)
	if err != nil {
		return before, after, err
	}
	score := func(weight, bonus float64) (Metrics, error) {
		c := *d
		c.LMWeight, c.WordBonus = weight, bonus
		e, err := m.score(ctx, all, &c)
		if err != nil {
			return Metrics{}, err
		}
		return e.Metrics, nil
	}
	if before, err = score(d.LMWeight, d.WordBonus); err != nil {
		return before, before, err
	}
	after = before
	try := func(weight, bonus float64) error {
		got, err := score(weight, bonus)
		if err == nil {
			after = d.keep(after, got, weight, bonus)
		}
		return err
	}
	weights := []float64{0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3}
	if d.LM == nil {
		weights = []float64{d.LMWeight}
	}
	bonuses := []float64{-4, -2, -1, 0, 1, 2, 3, 4, 6, 8}
	for range 2 { // one after the other, twice
		for _, w := range weights {
			if err := try(w, d.WordBonus); err != nil {
				return before, after, err
			}
		}
		for _, b := range bonuses {
			if err := try(d.LMWeight, b); err != nil {
				return before, after, err
			}
		}
	}
	return before, after, nil
}

// keep takes the weights over where they are better.
func (d *Decoding) keep(best, got Metrics, weight, bonus float64) Metrics {
	if got.WER < best.WER || got.WER == best.WER && got.CER < best.CER {
		d.LMWeight, d.WordBonus = weight, bonus
		return got
	}
	return best
}
