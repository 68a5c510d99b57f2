package translate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// copies are sentences of single letters that are their own translation.
func copies(n int, seed uint64) []data.Pair {
	r := rand.New(rand.NewPCG(seed, 0))
	list := make([]data.Pair, n)
	for i := range list {
		words := make([]string, 1+r.IntN(4))
		for k := range words {
			words[k] = string(rune('a' + r.IntN(8)))
		}
		s := strings.Join(words, " ")
		list[i] = data.Pair{Line: i + 1, Source: s, Target: s}
	}
	return list
}

// tiny is a configuration that learns copies in a few seconds.
func tiny() Config {
	c := Defaults()
	c.Tokens, c.VocabularySize, c.MinCount = "space", 100, 1
	c.Hidden, c.Embedding, c.Dropout, c.Smoothing = 64, 32, 0, 0
	c.BatchTokens, c.LR, c.Warmup, c.Epochs, c.Patience, c.EMA = 200, 0.01, 0.03, 9, -1, 0
	return c
}

// trained trains on copies and scores other ones.
func trained(t testing.TB, cfg Config) (*Model, *Evaluation) {
	t.Helper()
	d := &Data{Parts: task.Parts[data.Pair]{Training: copies(1600, 1), Validation: copies(60, 2), Test: copies(200, 3)}}
	m, _, err := Train(context.Background(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(context.Background(), d, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m, e
}

// Copying is learned to near perfection, and what was learned survives a
// directory.
func TestCopying(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(c *Config)
	}{
		{"additive", func(c *Config) { c.Attention = "additive" }},
		{"input feeding", func(c *Config) { c.InputFeeding = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := tiny()
			c.set(&cfg)
			m, e := trained(t, cfg)
			if e.Metrics.BLEU < 99 || e.Metrics.CHRF < 99 {
				t.Errorf("%s, chrF %.1f after copying was learned, want 99", e.Detail, e.Metrics.CHRF)
			}
			checkSaved(t, m)
		})
	}
}

func checkSaved(t *testing.T, m *Model) {
	t.Helper()
	dir := t.TempDir()
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	back, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"a b c d", "h g"}
	want, _ := m.Translate(context.Background(), texts, nil)
	got, err := back.Translate(context.Background(), texts, nil)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the saved model gives %v (%v), not %v", got, err, want)
	}
}

// Every variant of the model trains, and its batches change no translation.
func TestVariants(t *testing.T) {
	for name, set := range map[string]func(c *Config){
		"general":                  func(c *Config) {},
		"dot":                      func(c *Config) { c.Attention = "dot" },
		"additive":                 func(c *Config) { c.Attention = "additive" },
		"coverage":                 func(c *Config) { c.Coverage, c.CoverageLoss = true, 0.5 },
		"additive coverage":        func(c *Config) { c.Coverage, c.Attention, c.CoveragePenalty = true, "additive", 0.2 },
		"feeding, two layers":      func(c *Config) { c.InputFeeding, c.Layers, c.RNNDropout, c.Dropout = true, 2, 0.1, 0.1 },
		"gru, separate":            func(c *Config) { c.Cell, c.Separate = "gru", true },
		"one way, copied":          func(c *Config) { c.Bidirectional, c.Bridge = false, "copy" },
		"zero bridge, free output": func(c *Config) { c.Bridge, c.Output, c.LearnState = "zero", "free", true },
		"projected":                func(c *Config) { c.Proj = 24 },
		"sampling":                 func(c *Config) { c.ScheduledSampling = 0.5 },
		"carried":                  func(c *Config) { c.CarryState = true },
		"characters":               func(c *Config) { c.Tokens, c.NGramBlock = "char", 4 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tiny()
			cfg.Hidden, cfg.Epochs = 32, 1
			set(&cfg)
			d := &Data{Parts: task.Parts[data.Pair]{Training: copies(120, 4), Validation: copies(20, 5)}}
			m, r, err := Train(context.Background(), d, cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.Steps == 0 {
				t.Fatal("no step was taken")
			}
			checkBatches(t, m)
		})
	}
}

// checkBatches translates texts together, one by one, and with fewer hypotheses
// beside them: padding and neighbours change no bit.
func checkBatches(t *testing.T, m *Model) {
	t.Helper()
	texts := []string{"a b c", "", "d", "l k j i h g f e", "  a  a a a ", "a b c"}
	o := &PredictOptions{NBest: 3, Attention: true}
	all, err := m.Translate(context.Background(), texts, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range texts {
		alone, err := m.Translate(context.Background(), []string{s}, o)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(all[i]), fmt.Sprint(alone[0]); all[i].Score != alone[0].Score || !slices.Equal(all[i].Alternatives, alone[0].Alternatives) {
			t.Errorf("%q: %s among others, %s alone", s, got, want)
		}
		if a, b := all[i].Attention, alone[0].Attention; a != nil {
			for k := range a.Weights {
				if !slices.Equal(a.Weights[k], b.Weights[k]) {
					t.Errorf("%q: the attention of token %d is %v among others, %v alone", s, k, a.Weights[k], b.Weights[k])
				}
			}
		}
	}
	if all[1].Text != "" || all[1].Parts != 0 {
		t.Errorf("an empty text became %+v", all[1])
	}
}
