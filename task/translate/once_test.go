package translate

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Trainings on the same data share the encoded pairs, unless a setting that decides on them differs: whatever setting is another one,
// they are those of data that nobody has trained on.
func TestEncodedOnce(t *testing.T) {
	pairs, held := copies(30, 1), copies(10, 2)
	fresh := func() *Data {
		return &Data{Parts: task.Parts[data.Pair]{Training: slices.Clone(pairs), Validation: slices.Clone(held)}}
	}
	cfg := func() Config {
		c := tiny()
		c.Epochs, c.Embedding, c.Hidden = 1, 6, 8
		return c
	}
	shared := fresh()
	if _, _, err := Train(t.Context(), shared, cfg(), nil); err != nil {
		t.Fatal(err)
	}
	encode := func(d *Data, cfg Config) *training {
		r, err := prepare(t.Context(), d, cfg, tensor.CPU())
		if err != nil {
			return &training{}
		}
		return r
	}
	again := map[string]bool{}
	tried := 0
	for _, s := range settings.List(&Config{}) {
		texts := []string{"0", "1", "2", "5", "300", "0.5", "true", "false"}
		for _, c := range s.Choices {
			texts = append(texts, c.Word)
		}
		for _, text := range texts {
			c := cfg()
			if settings.Named(settings.List(&c), s.Name).Assign(text) != nil || reflect.DeepEqual(c, cfg()) || c.Validate() != nil {
				continue
			}
			tried++
			first, got, want := encode(shared, cfg()), encode(shared, c), encode(fresh(), c)
			if !reflect.DeepEqual(got.pairs, want.pairs) || !reflect.DeepEqual(got.valid, want.valid) {
				t.Errorf("%s %s: the pairs are those of other settings", s.Name, text)
			}
			again[s.Name] = again[s.Name] || got.pairs != first.pairs && got.pairs != nil
		}
	}
	for name, want := range map[string]bool{"tokens": true, "separate": true, "case": true, "max_length": true, "hidden": false, "lr": false, "dropout": false, "embedding": false, "seed": false} {
		if again[name] != want {
			t.Errorf("%s: encoded again: %v", name, again[name])
		}
	}
	t.Log(tried, fmt.Sprint(again))
}
