package tag

import (
	"fmt"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
)

// stepSettings are those of internal/golden/gen/tagging.py.
type stepSettings struct {
	golden.Steps
	Chars    string
	Affixes  int
	Pairs    bool
	CRF      bool
	Words    int
	Letters  int
	Batch    int
	Window   int
	Distinct int

	NAffixes int `json:"n_affixes"`
	NPairs   int `json:"n_pairs"`
	NChars   int `json:"n_chars"`
}

// numbered is a vocabulary of n tokens.
func numbered(n int) *text.Vocabulary {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(i)
	}
	return text.NewVocabulary(nil, &text.VocabularyOptions{Special: list})
}

// TestTenStepsOfPyTorch takes the same ten steps as PyTorch from the same
// weights, batch by batch.
func TestTenStepsOfPyTorch(t *testing.T) { golden.Run(t, "steps", takeSteps) }

func takeSteps(t *testing.T, c *golden.Case) {
	var s stepSettings
	if err := c.Settings(&s); err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden, cfg.CharHidden, cfg.Affixes, cfg.Chars = 6, 5, 4, s.Affixes, s.Chars
	cfg.Pairs, cfg.Decoder, cfg.Dropout, cfg.WordDropout = "off", "softmax", 0, 0
	if s.Pairs {
		cfg.Pairs = "on"
	}
	if s.CRF {
		cfg.Decoder = "crf"
	}
	v := &vocabularies{Words: numbered(s.Words), Known: s.Words, Affixes: numbered(s.NAffixes), Pairs: numbered(s.NPairs), Chars: numbered(s.NChars)}
	n, err := newNetwork(&cfg, v, inBIOES([]string{"A", "B"}), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range c.TakeSteps(n, &s.Steps, func(tape *tensor.Tape, step int) *tensor.Tensor {
		return n.loss(tape, goldenBatch(c, &s, step))
	}) {
		t.Error(err)
	}
}

// goldenBatch is the batch of a step as the case has it.
func goldenBatch(c *golden.Case, s *stepSettings, step int) *batch {
	part := func(name string) []int32 { return c.Part(name, step, s.Steps.Steps) }
	b := &batch{rows: s.Batch, steps: s.Window, lengths: part("lengths"), ids: part("ids"), pairs: part("pairs"), tags: part("tags"),
		gather: part("gather"), affixes: part("affixes"), letters: part("letters"), longest: s.Letters, distinct: make([]int32, s.Distinct)}
	chars := part("chars")
	for k := range b.chars {
		b.chars[k] = chars[k*len(chars)/3 : (k+1)*len(chars)/3]
	}
	return b
}
