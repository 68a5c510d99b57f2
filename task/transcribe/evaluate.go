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
	"github.com/carousel-ml/carousel/train"
)

// Metrics are the error rates of transcripts. They may exceed 1.
type Metrics struct {
	WER float64 `json:"wer"` // word error rate: errors per word of the references; 0.1 is 10 %
	CER float64 `json:"cer"` // character error rate: errors per character, or per symbol, of the references
}

// Evaluation is the scores of a recogniser on utterances with known texts.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Metrics    Metrics   `json:"metrics"`          // the model's scores
	Greedy     *Metrics  `json:"greedy,omitempty"` // scores of greedy decoding, if metrics are those of a beam search
	Words      Errors    `json:"words"`            // errors counted in words
	Units      Errors    `json:"units"`            // errors counted in characters or symbols
	Utterances int       `json:"utterances"`       // number of utterances scored
	Exact      int       `json:"exact"`            // number of utterances without an error
	Seconds    float64   `json:"seconds"`          // length of the sounds in seconds
	Taken      float64   `json:"taken"`            // time for transcribing them in seconds, without reading
	Notes      []string  `json:"notes,omitempty"`  // remarks on the result, a sentence each
	Results    []*Result `json:"-"`                // in the order of the manifest
}

// Result is the transcript of one utterance, compared with its text.
type Result struct {
	speech.Utterance
	Transcript *Transcript
	Pairs      []Pair // the words, aligned
	Words      Errors
	Units      Errors
}

// EvaluateOptions describes how to decode. nil decodes as the model does by
// default ([Model.Decoding]); the zero value is greedy decoding.
type EvaluateOptions struct {
	Greedy      bool   `json:"greedy" group:"Decoding" help:"decode greedily, without the model's language model and lexicon"`
	LMFile      string `json:"lm" value:"file" group:"Decoding" help:"n-gram language model in ARPA format (empty: the model's)"`
	LexiconFile string `json:"lexicon" value:"file" group:"Decoding" help:"file of the allowed words, the first field of each line (empty: the model's)"`
	Decoding

	given func(setting string) bool // reports whether the user sets a setting; nil if Inherit was not called
}

// Inherit implements [task.Inheritor]: it sets the options to the model's
// decoding, with the default weights for a language model or hot words that the
// user gives.
func (o *EvaluateOptions) Inherit(m task.Model, given func(string) bool) {
	o.Decoding, o.given = *m.(*Model).Decoding(), given
	if given("lm") {
		o.LMTokens, o.LMWeight, o.WordBonus = false, DefaultLMWeight, DefaultWordBonus
	}
	if given("hot_words") {
		o.HotWeight = DefaultHotWeight
	}
}

// Validate returns a *data.InputError if an option is out of its range or needs
// another one, or nil.
func (o *EvaluateOptions) Validate() error { return o.validate(o) }

// validate is Validate for options that embed o.
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
	case given("word_bonus") && !lm && o.Lexicon == nil && o.LexiconFile == "" && o.Beam < 2 && len(o.HotWords) == 0 && !given("n_best"):
		return data.Errorf("--word-bonus: needs a search; give --beam, --lm or --lexicon")
	}
	return nil
}

// Evaluate transcribes a part of the data and counts the errors, and also those
// of greedy decoding if o asks for a search. A part without utterances or texts, options
// that the model does not support, and files that cannot be used are a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Evaluate(ctx context.Context, d *Data, part task.Part, o *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "transcribe: Evaluate")
	decoding, err := m.decodingOf(ctx, o)
	if err != nil {
		return nil, err
	}
	list := d.Of(part)
	e, all, err := m.scored(ctx, d, list, decoding)
	if err != nil {
		return nil, err
	}
	e.Scored = d.Scored(part)
	if decoding.searches() {
		g, err := m.score(ctx, all, &Decoding{})
		if err != nil {
			return nil, err
		}
		e.Greedy = &g.Metrics
	}
	e.Notes = slices.Concat(m.unknownUnits(list), decoding.read(), decoding.lacking(list, "texts"))
	return e, nil
}

// Tally returns the word error rate of [Model.Evaluate] by utterance: the numbers of
// errors and of words of the text. Its errors are those of Evaluate.
func (m *Model) Tally(ctx context.Context, d *Data, part task.Part, o *EvaluateOptions) (_ *task.Tally, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "transcribe: Tally")
	decoding, err := m.decodingOf(ctx, o)
	if err != nil {
		return nil, err
	}
	e, _, err := m.scored(ctx, d, d.Of(part), decoding)
	if err != nil {
		return nil, err
	}
	t := &task.Tally{Name: "wer", Rate: true, Of: func(s []float64) float64 { return Errors{Substitutions: int(s[0]), Reference: int(s[1])}.Rate() }}
	for _, r := range e.Results {
		t.Rows = append(t.Rows, []float64{float64(r.Words.Total()), float64(r.Words.Reference)})
	}
	return t, nil
}

// scored transcribes utterances and counts the errors. It also returns the emissions.
func (m *Model) scored(ctx context.Context, d *Data, list []speech.Utterance, decoding *Decoding) (*Evaluation, []emissions, error) {
	if len(list) == 0 {
		return nil, nil, data.Errorf("there is no utterance to score")
	}
	if !slices.ContainsFunc(list, func(u speech.Utterance) bool { return u.Text != "" }) {
		return nil, nil, &data.InputError{File: list[0].File, Column: m.cfg.Text, Problem: fmt.Sprintf("has no text in any of %s, and an error rate is one of the words of texts", report.Plural(len(list), "row")), Fix: "give what is said, or use predict"}
	}
	begun := time.Now()
	all, reading, err := m.emissions(ctx, d, list)
	if err != nil {
		return nil, nil, err
	}
	e, err := m.score(ctx, all, decoding)
	if err != nil {
		return nil, nil, err
	}
	e.Taken = (time.Since(begun) - reading).Seconds()
	return e, all, nil
}

// emissions are the log-probabilities of the classes at each step of an utterance
// [steps][classes].
type emissions struct {
	speech.Utterance
	rows    [][]float64
	seconds float64
}

// unknownUnits returns a note on the tokens of texts that the model lacks.
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
	return []string{fmt.Sprintf("%s of the texts missing in the model, each of which counts as an error: %s", report.Agree(n, "token is", "tokens are"), report.Listing(names))}
}

// emissions runs the network over utterances of the data, and also returns how
// long reading took.
func (m *Model) emissions(ctx context.Context, d *Data, list []speech.Utterance) ([]emissions, time.Duration, error) {
	begun := time.Now()
	c, err := m.frontend.Dataset(ctx, list, &d.Data)
	if err != nil {
		return nil, 0, err
	}
	reading := time.Since(begun)
	all, classes, steps := make([]emissions, len(list)), m.alphabet.classes(), c.StepCounts()
	var buffer []float32
	err = speech.Each(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), m.net, c, func(samples []int, b *speech.Batch, logits *tensor.Tensor) []float32 {
		values := logits.Data()
		buffer = buffer[:0]
		for k, s := range samples {
			buffer = append(buffer, values[k*b.Steps*classes:][:steps[s]*classes]...)
		}
		return buffer
	}, func(samples []int, logits []float32) {
		for _, s := range samples {
			n := steps[s] * classes
			all[s] = emissions{list[s], logRows(logits[:n], classes), c.Duration(s)}
			logits = logits[n:]
		}
	})
	return all, reading, err
}

// score decodes and counts errors. The context's ranks share the searches.
func (m *Model) score(ctx context.Context, all []emissions, d *Decoding) (*Evaluation, error) {
	e := &Evaluation{Task: Name, Utterances: len(all)}
	err := train.Share(ctx, len(all), func(ctx context.Context, i int) ([]float64, error) {
		found, err := m.search(ctx, all[i].rows, d)
		if err != nil {
			return nil, err
		}
		return found[0].numbers(), nil
	}, func(i int, best []float64) error {
		u := &all[i]
		r := &Result{Utterance: u.Utterance, Transcript: m.transcript([]hypothesis{hypothesisOf(best)}, d, u.seconds)}
		r.Pairs, r.Words = Align(strings.Fields(u.Text), strings.Fields(r.Transcript.Text))
		_, r.Units = Align(letters(m.alphabet.Kind, u.Text), letters(m.alphabet.Kind, r.Transcript.Text))
		e.Words.add(r.Words)
		e.Units.add(r.Units)
		e.Seconds += u.seconds
		if r.Units.Total() == 0 {
			e.Exact++
		}
		e.Results = append(e.Results, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	e.Metrics = Metrics{e.Words.Rate(), e.Units.Rate()}
	return e, nil
}

// Worst returns the n results with the highest word error rates.
func (e *Evaluation) Worst(n int) []*Result {
	list := slices.Clone(e.Results)
	slices.SortStableFunc(list, func(a, b *Result) int {
		return cmp.Or(cmp.Compare(b.Words.Rate(), a.Words.Rate()), cmp.Compare(b.Units.Total(), a.Units.Total()))
	})
	return list[:min(n, len(list))]
}

// Confusion is a word that was replaced by another, missed (Hypothesis "") or
// inserted (Reference "").
type Confusion struct {
	Pair
	Times int `json:"times"` // number of occurrences
}

// Confusions returns the n most frequent errors.
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

// Tune sets the weight of the language model and the bonus of words in decoding
// to those with the lowest word error rate on a part of the data. The result must
// not be evaluated on the same part. It returns the error rates before and after.
// A decoding that does not fit the model and files that cannot be used are a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Tune(ctx context.Context, d *Data, part task.Part, decoding *Decoding) (before, after Metrics, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "transcribe: Tune")
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
	for range 2 { // one of the two at a time, twice
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

// keep sets the weights if their error rates are lower, and returns the lower
// rates.
func (d *Decoding) keep(best, got Metrics, weight, bonus float64) Metrics {
	if got.WER < best.WER || got.WER == best.WER && got.CER < best.CER {
		d.LMWeight, d.WordBonus = weight, bonus
		return got
	}
	return best
}
