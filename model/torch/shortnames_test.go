package torch

import (
	"testing"

	"github.com/carousel-ml/carousel/model"
)

func TestLongNames(t *testing.T) {
	f := file(t, "enc_emb 7 3", "enc_w_ih 12 3", "enc_w_hh 12 4", "enc_b_ih 12", "enc_b_hh 12", "fc_w 5 4", "fc_b 5")
	named, notes, err := LongNames(f)
	if err != nil || len(notes) != 1 {
		t.Fatal(notes, err)
	}
	arch, err := Describe(named, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []model.Kind{model.Embedding, model.GRU, model.Linear}
	if len(arch.Layers) != len(want) || len(arch.Other) > 0 {
		t.Fatalf("%+v", arch)
	}
	for i, l := range arch.Layers {
		if l.Kind != want[i] {
			t.Errorf("layer %s is %s, want %s", l.Name, l.Kind, want[i])
		}
	}
	// Without a recurrent layer, or with PyTorch's own names, nothing changes.
	for _, other := range []*model.File{file(t, "fc_w 5 4", "fc_b 5"), file(t, "enc_w_ih 12 3", "enc_w_hh 12 4", "fc.weight 5 4")} {
		if same, notes, err := LongNames(other); same != other || notes != nil || err != nil {
			t.Errorf("%v, %v", notes, err)
		}
	}
}
