package transcribe

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
)

// The files of a model directory that decoding needs. The language model may be
// gzipped whatever its name.
const (
	lmFile      = "lm.arpa"
	lexiconFile = "lexicon.txt"
)

// Decoding describes how texts are decoded from the probabilities of each step.
// The zero value is greedy decoding: the most probable class of each step.
type Decoding struct {
	Beam      int      `json:"beam" range:"0..10000" group:"Decoding" help:"hypotheses kept by the beam search (1: greedy; 0: 1, or 64 if another option needs a search)"`
	LM        *LM      `json:"-"` // language model
	LMTokens  bool     `json:"lm_tokens" was:"lm_units" group:"Decoding" help:"the language model is of tokens (characters, <space>), not of words"`
	LMWeight  float64  `json:"lm_weight" range:"-1000..1000" group:"Decoding" help:"weight of the language model's log-probability"`
	WordBonus float64  `json:"word_bonus" range:"-1000..1000" group:"Decoding" help:"score added per word (with lm_tokens: per token), since a language model prefers short texts"`
	Lexicon   *Lexicon `json:"-"` // the allowed words
	HotWords  []string `json:"hot_words" group:"Decoding" help:"words that are likely to occur"`
	HotWeight float64  `json:"hot_weight" range:"-1000..1000" group:"Decoding" help:"score added per hot word"`

	nBest int // number of texts to find, as PredictOptions.NBest
}

// savedDecoding is a Decoding in config.json.
type savedDecoding struct {
	Decoding
	NBest int `json:"n_best,omitempty" was:"best"` // older models have it; it has no effect
}

// UnmarshalJSON decodes the decoding of a model, also of an older one. Its errors
// are those of settings.Decode.
func (d *savedDecoding) UnmarshalJSON(raw []byte) error {
	type fields savedDecoding
	return settings.Decode(raw, (*fields)(d))
}

// decodingOf returns the decoding for options, and reads its files. A cancelled ctx
// returns its error.
func (m *Model) decodingOf(ctx context.Context, o *EvaluateOptions) (*Decoding, error) {
	if o == nil {
		return m.Decoding(), nil
	}
	if o.Greedy {
		return &Decoding{}, nil
	}
	d := o.Decoding
	var err error
	if o.LMFile != "" {
		if d.LM, err = ReadLM(ctx, o.LMFile); err != nil {
			return nil, err
		}
	}
	if o.LexiconFile != "" {
		if d.Lexicon, err = ReadLexicon(ctx, o.LexiconFile); err != nil {
			return nil, err
		}
	}
	return &d, d.check(m.alphabet)
}

// Decoding returns how the model decodes by default: greedily, or with the
// language model and lexicon that it was trained with. The caller may change the
// result.
func (m *Model) Decoding() *Decoding {
	d := m.decoding
	d.HotWords = slices.Clone(d.HotWords)
	return &d
}

// searches reports whether a beam search is needed.
func (d *Decoding) searches() bool {
	return d.Beam > 1 || d.LM != nil || d.Lexicon != nil || len(d.HotWords) > 0 || d.Beam == 0 && d.nBest > 0
}

// check returns a *data.InputError if the decoding does not fit the alphabet.
func (d *Decoding) check(a *alphabet) error {
	if err := settings.Check(d); err != nil {
		return data.Setting(err)
	}
	switch {
	case d.Lexicon != nil && a.Kind == "space":
		return data.Errorf("lexicon: needs a model of characters; this one is of symbols")
	case d.Lexicon != nil && !d.Lexicon.root.spelled(a, ""):
		return data.Errorf("lexicon: the model has the tokens for none of its words; it has %s (check upper and lower case)", report.Listing(a.quoted()))
	case d.LM != nil && !d.LM.spelled(a, d.LMTokens):
		return data.Errorf("language model: the model has the tokens for none of its words; it has %s (check upper and lower case, and lm-tokens)", report.Listing(a.quoted()))
	}
	for _, w := range d.HotWords {
		if len(strings.Fields(w)) != 1 {
			return data.Errorf("hot words: want single words, got %q", w)
		}
		if _, unknown := a.encode(w); len(unknown) > 0 {
			return data.Errorf("hot words: %q has %q, which is not a token of the model", w, unknown[0])
		}
	}
	return nil
}

// read returns notes on unusual lines of the lexicon's and the language model's files.
func (d *Decoding) read() (notes []string) {
	if d.Lexicon != nil && d.Lexicon.note != "" {
		notes = append(notes, d.Lexicon.note)
	}
	if d.LM != nil && d.LM.note != "" {
		notes = append(notes, d.LM.note)
	}
	return notes
}

// lacking returns notes on words of texts that the lexicon and the language model
// lack.
func (d *Decoding) lacking(list []speech.Utterance, texts string) (notes []string) {
	note := func(name string, has func(word string) bool) {
		var words []string
		seen := map[string]bool{}
		for _, u := range list {
			for _, w := range strings.Fields(u.Text) {
				if !seen[w] && !has(w) {
					words = append(words, w)
				}
				seen[w] = true
			}
		}
		if len(words) > 0 {
			notes = append(notes, fmt.Sprintf("the %s lacks %s of the %s: %s", name, report.Plural(len(words), "word"), texts, report.Listing(words)))
		}
	}
	if d.Lexicon != nil {
		note("lexicon", func(w string) bool {
			n := d.Lexicon.root.follow(w)
			return n != nil && n.word
		})
	}
	if d.LM != nil && !d.LMTokens {
		note("language model", d.LM.Has)
	}
	return notes
}

// decodingFiles returns the files that Save copies into the model's directory.
func (c *Config) decodingFiles() (files []model.Part) {
	if c.Lexicon != "" {
		files = append(files, model.FileCopy(lexiconFile, c.Lexicon))
	}
	if c.LM != "" {
		files = append(files, model.FileCopy(lmFile, c.LM))
	}
	return files
}

// The default weights of a language model and of hot words, with which tuning
// begins.
const (
	DefaultLMWeight  = 0.5
	DefaultWordBonus = 1
	DefaultHotWeight = 4
)

// decoding reads the files of decoding that a configuration names.
func (c *Config) decoding(ctx context.Context) (*Decoding, error) {
	d := &Decoding{Beam: c.Beam, LMTokens: c.LMTokens}
	var err error
	if c.LM != "" {
		d.LMWeight, d.WordBonus = DefaultLMWeight, DefaultWordBonus
		if d.LM, err = ReadLM(ctx, c.LM); err != nil {
			return nil, err
		}
	}
	if c.Lexicon != "" {
		if d.Lexicon, err = ReadLexicon(ctx, c.Lexicon); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// openDecoding reads a file of decoding from a model directory.
func (m *Model) openDecoding(d *model.Dir, name string) error {
	content, err := d.Read(name)
	if err != nil {
		return err
	}
	lines, err := data.LinesOf(d.File(name), content, data.EncodingAuto)
	if err != nil {
		return err
	}
	never := func() error { return nil }
	switch name {
	case lmFile:
		m.decoding.LM, err = readLM(lines, never)
	case lexiconFile:
		m.decoding.Lexicon, err = readLexicon(lines, never)
	}
	m.files = append(m.files, d.Copy(name))
	return err
}

// tuneDecoding tunes the weights of decoding on the validation utterances, if
// there is a language model or lexicon, and notes what these lack.
func (m *Model) tuneDecoding(ctx context.Context, d *Data, valid []speech.Utterance) error {
	if m.decoding.LM == nil && m.decoding.Lexicon == nil {
		return nil
	}
	m.notes = append(m.notes, m.decoding.lacking(valid, "validation texts")...)
	if len(valid) == 0 {
		m.notes = append(m.notes, "without validation utterances, the weights of decoding are not tuned")
		return nil
	}
	before, after, err := m.tune(ctx, d, valid, &m.decoding)
	if err != nil {
		return err
	}
	m.notes = append(m.notes, fmt.Sprintf("decoding tuned on %s: lm_weight %v, word_bonus %v; word error rate %.1f %%, before %.1f %%",
		report.Plural(len(valid), "validation utterance"), m.decoding.LMWeight, m.decoding.WordBonus, 100*after.WER, 100*before.WER))
	return nil
}
