package tag

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/tensor"
)

// Trainings on the same data share the encoded sentences, unless a setting that decides on them differs: whatever setting is another
// one, they are those of data that nobody has trained on.
func TestEncodedOnce(t *testing.T) {
	sentences, valid := made(1, 30, IOB2), made(2, 10, IOB2)
	fresh := func() *Data { return both(slices.Clone(sentences), slices.Clone(valid)) }
	shared := fresh()
	if _, _, err := Train(t.Context(), shared, small(), nil); err != nil {
		t.Fatal(err)
	}
	encode := func(d *Data, cfg Config) (*vocabularies, *corpus, *corpus) {
		m, learn, valid, err := prepare(t.Context(), d, cfg, tensor.CPU())
		if err != nil {
			return nil, nil, nil
		}
		return m.vocabularies, learn, valid
	}
	_, first, _ := encode(shared, small())
	again := map[string]bool{}
	tried := 0
	for _, s := range settings.List(&Config{}) {
		texts := []string{"0", "1", "2", "5", "0.5", "true", "false"}
		for _, c := range s.Choices {
			texts = append(texts, c.Word)
		}
		for _, text := range texts {
			cfg := small()
			if settings.Named(settings.List(&cfg), s.Name).Assign(text) != nil || reflect.DeepEqual(cfg, small()) || cfg.Validate() != nil {
				continue
			}
			tried++
			_, first, _ := encode(shared, small())
			v, learn, valid := encode(shared, cfg)
			if w, a, b := encode(fresh(), cfg); !reflect.DeepEqual(v, w) || !reflect.DeepEqual(learn, a) || !reflect.DeepEqual(valid, b) {
				t.Errorf("%s %s: the sentences are those of other settings", s.Name, text)
			}
			again[s.Name] = again[s.Name] || learn != first && learn != nil
		}
	}
	for name, want := range map[string]bool{"min_count": true, "fold_case": true, "scheme": true, "piece_length": true, "affixes": true, "hidden": false, "lr": false, "dropout": false, "embedding": false, "seed": false} {
		if again[name] != want {
			t.Errorf("%s: encoded again: %v", name, again[name])
		}
	}
	other := fresh()
	other.Training = append([]data.Sentence{{Tokens: []string{"Oslo"}, Tags: []string{"B-LOC"}}}, other.Training...)
	if _, a, _ := encode(other, small()); len(a.pieces) != len(first.pieces)+1 {
		t.Error(len(a.pieces))
	}
	other.Training = other.Training[1:]
	if _, a, _ := encode(other, small()); !reflect.DeepEqual(a, first) {
		t.Error("sentences that are no part of the training any more are read")
	}
	t.Log(tried, fmt.Sprint(again))
}
