package speech

import (
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
)

// The files of a model directory that help decoding. A model in ARPA format may
// be gzipped, whatever it is called.
const (
	lmFile      = "lm.arpa"
	lexiconFile = "lexicon.txt"
)

// Decoding is how the model decodes unless told otherwise: greedily, or with
// the language model and lexicon that it was trained with. The result is the
// caller's.
func (m *Model) Decoding() *Decoding {
	d := m.decoding
	d.HotWords = slices.Clone(d.HotWords)
	return &d
}

// helperFiles are what Save copies into the model's directory.
func (c *Config) helperFiles() (files []model.Part) {
	if c.Lexicon != "" {
		files = append(files, model.FileCopy(lexiconFile, c.Lexicon))
	}
	if c.LM != "" {
		files = append(files, model.FileCopy(lmFile, c.LM))
	}
	return files
}

// What a language model and hot words weigh before anything says more; tuning
// begins there.
const (
	DefaultLMWeight  = 0.5
	DefaultWordBonus = 1
	DefaultHotWeight = 4
)

// decoding reads the helpers that a configuration names.
func (c *Config) decoding() (*Decoding, error) {
	d := &Decoding{Beam: c.Beam, LMTokens: c.LMTokens}
	var err error
	if c.LM != "" {
		d.LMWeight, d.WordBonus = DefaultLMWeight, DefaultWordBonus
		if d.LM, err = ReadLM(c.LM); err != nil {
			return nil, err
		}
	}
	if c.Lexicon != "" {
		if d.Lexicon, err = ReadLexicon(c.Lexicon); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// attach reads a helper from a model directory.
func (m *Model) attach(d *model.Dir, name string) error {
	content, err := d.Read(name)
	if err != nil {
		return err
	}
	lines, err := data.LinesOf(d.File(name), content, data.EncodingAuto)
	if err != nil {
		return err
	}
	switch name {
	case lmFile:
		m.decoding.LM, err = readLM(lines)
	case lexiconFile:
		m.decoding.Lexicon, err = readLexicon(lines)
	}
	m.files = append(m.files, d.Copy(name))
	return err
}

// help tunes the weights of decoding on the validation utterances, where there
// is something to tune, and notes what the lexicon lacks.
func (m *Model) help(ctx context.Context, valid []Utterance) error {
	if m.decoding.LM == nil && m.decoding.Lexicon == nil {
		return nil
	}
	m.notes = append(m.notes, m.decoding.lacking(valid, "validation texts")...)
	if len(valid) == 0 {
		m.notes = append(m.notes, "without validation utterances the weights of decoding were not tuned")
		return nil
	}
	before, after, err := m.Tune(ctx, valid, &m.decoding)
	if err != nil {
		return err
	}
	m.notes = append(m.notes, fmt.Sprintf("decoding tuned on %s: language model weight %v, bonus %v for a word; word error rate %.1f %%, before %.1f %%",
		counted(len(valid), "validation utterance", "validation utterances"), m.decoding.LMWeight, m.decoding.WordBonus, 100*after.WER, 100*before.WER))
	return nil
}
