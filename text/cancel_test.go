package text

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"testing"
)

// countdown is a context that is cancelled at the n-th look at its error.
type countdown struct {
	context.Context
	n int
}

func (c *countdown) Err() error {
	if c.n--; c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestTrainingCanBeCancelled cancels the training of each kind at its first checks
// for it: while texts are read, and after that in the trainer.
func TestTrainingCanBeCancelled(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var words []string
	for range 3000 {
		words = append(words, randomWord(r, 12))
	}
	read := 0
	texts := iter.Seq[string](func(yield func(string) bool) {
		for i := range words {
			if read++; !yield(words[i]) {
				return
			}
		}
	})
	for _, kind := range Kinds() {
		read = 0
		if _, err := TrainTokenizer(&countdown{t.Context(), 2}, kind, texts, nil); !errors.Is(err, context.Canceled) || read != 3 {
			t.Errorf("%s: %v after %d texts", kind, err, read)
		}
		if kind != "bpe" && kind != "charbpe" && kind != "unigram" {
			continue
		}
		all := &countdown{t.Context(), 1 << 30}
		if _, err := TrainTokenizer(all, kind, texts, nil); err != nil {
			t.Fatal(err)
		}
		looks := 1<<30 - all.n
		if looks < len(words)+20 {
			t.Errorf("%s: looked for cancellation %d times, of these %d for texts", kind, looks, len(words))
		}
		for _, at := range []int{len(words), len(words) + 10, looks - 1} {
			if _, err := TrainTokenizer(&countdown{t.Context(), at}, kind, texts, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("%s, cancelled at look %d of %d: %v", kind, at, looks, err)
			}
		}
	}
}

func TestReadVectorsCanBeCancelled(t *testing.T) {
	path := writeFile(t, "v.txt", "a 1 2\nb 3 4\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadVectors(ctx, path, vocabularyOf("a", "b")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
