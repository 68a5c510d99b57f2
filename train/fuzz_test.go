package train

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// FuzzCheckpoint: a run resumes from a sound file with any state and any number of its
// tensors and leaves a checkpoint that can be read again, or it says what is wrong.
func FuzzCheckpoint(f *testing.F) {
	begin := func(dir string) (*Job[testBatch], *Options) {
		job, o := newJob(8), newOptions()
		o.Dir, o.Batch, o.Epochs, o.CheckpointEvery, o.EMA = dir, 4, 2, 1, 0.5
		o.Schedule, o.Plateau, o.Patience = nil, optim.NewPlateau(1e-2, &optim.PlateauOptions{}), 2
		steps := new(tally)
		job.Carry = func(int) Carry { return steps }
		o.Precision, o.Scaler = tensor.Float16, &optim.GradScalerOptions{Init: 1024}
		return job, o
	}
	dir := f.TempDir()
	job, o := begin(dir)
	ctx, cancel := context.WithCancel(f.Context())
	inner, losses := job.Loss, 0
	job.Loss = func(tape *tensor.Tape, b *testBatch) *tensor.Tensor {
		if losses++; losses == 3 { // in the second epoch
			cancel()
		}
		return inner(tape, b)
	}
	if _, err := Fit(ctx, job, o); err != nil {
		f.Fatal(err)
	}
	whole, err := model.ReadTensors(lastPath(dir))
	if err != nil {
		f.Fatal(err)
	}
	text := whole.Meta["state"]
	f.Add(text, uint8(len(whole.Tensors)))
	number := regexp.MustCompile(`"(Step|Epoch|Batch|Loss|Weight|Norm|Reads|Bad|LR|Best|Updates|Averaged|Scale|Tracker|Skipped|Overflows|Seconds)":[-+.e0-9]+`)
	for _, at := range number.FindAllStringIndex(text, -1) {
		key, _, _ := strings.Cut(text[at[0]:at[1]], ":")
		for _, v := range []string{"-1", "9223372036854775807", "1.7e308"} {
			f.Add(text[:at[0]]+key+":"+v+text[at[1]:], uint8(len(whole.Tensors)))
		}
	}
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		tensors := whole.Tensors[:min(int(n), len(whole.Tensors))]
		meta := map[string]string{"format": checkpointFormat, "state": text, "crc32c": checksum(text, tensors)}
		if err := model.WriteTensors(lastPath(dir), tensors, meta); err != nil {
			return // no valid text
		}
		job, o := begin(dir)
		o.Resume = true
		r, err := Fit(t.Context(), job, o)
		if err != nil {
			var fe *model.FileError
			if !errors.As(err, &fe) || strings.Contains(err.Error(), "\n") {
				t.Errorf("not a FileError of one line: %q", err)
			}
			return
		}
		if _, s, err := readCheckpoint(lastPath(dir), newState(job, o)); err != nil || s.Epoch != r.Epochs || s.Step != r.Steps {
			t.Errorf("ended at epoch %d, step %d; the checkpoint: %+v, %v", r.Epochs, r.Steps, s, err)
		}
	})
}
