package train

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// A checkpoint is one safetensors file, so that replacing it is one rename:
// the parameters under "model.", the optimizer's vectors under "optimizer.",
// the average under "ema.", the best weights so far under "best.", and in the
// metadata the state below as JSON and a checksum over both.

// state is everything a run must save besides vectors. Every field survives
// JSON unchanged.
type state struct {
	Settings    settings
	Fingerprint Fingerprint
	Devices     []string // as Result.Devices
	Step        int      // optimizer steps done
	Epoch       int      // epochs closed
	Batch       int      // batches of the open epoch that are done
	Loss        float64  // Σ weight·loss of the open epoch
	Weight      float64  // Σ weight
	Norm        float64  // Σ gradient norm
	Clips       int      // steps whose norm was above the bound
	Reads       int      // steps in these sums
	LR          float32  // of the last step
	Best        *Record
	Bad         int // validations since the best
	Plateau     *optim.PlateauState
	Updates     int                // of the optimizer
	Averaged    int                // updates of the EMA
	Scaler      *optim.ScalerState `json:",omitempty"`
	Skipped     int                // steps left out by the scaler
	Overflows   int                // of these, the last ones in a row
	Carry       carried            `json:",omitempty"` // Job.Carry, by slot
	History     []Record
	Seconds     float64
}

// carried are the states of slots. A single string, as the checkpoints of older
// versions have, is that of one slot.
type carried [][]byte

func (c *carried) UnmarshalJSON(b []byte) error {
	var one []byte
	if json.Unmarshal(b, &one) == nil {
		*c = carried{one}
		return nil
	}
	return json.Unmarshal(b, (*[][]byte)(c))
}

// settings are what must agree between a checkpoint and the run that resumes
// it.
type settings struct {
	Samples, Batch, Batches, Accumulate int
	Seed                                uint64
	Clip, ClipValue                     float32
	EMA                                 float64
	Optimizer, Metric                   string
	Plateau                             bool
	Precision                           tensor.Precision
	Keep                                string // Keep32
	Scaler                              optim.GradScalerOptions
}

const (
	checkpointFormat = "carousel.checkpoint/2"
	weightsPrefix    = "model."
	momentsPrefix    = "optimizer."
	averagePrefix    = "ema."
	bestPrefix       = "best."
)

// The files of a run.
func lastPath(dir string) string       { return filepath.Join(dir, "checkpoints", "last.safetensors") }
func bestPath(dir string) string       { return filepath.Join(dir, "checkpoints", "best.safetensors") }
func tensorBoardDir(dir string) string { return filepath.Join(dir, "tensorboard") }

// Files are what a run keeps in its directory beside the model, relative to it.
var Files = []string{metricsFile, lastPath(""), bestPath("")}

// Checkpoint returns the path of the file that a run in dir goes on from. It is replaced as
// a whole, and is all that another directory needs to go on there.
func Checkpoint(dir string) string { return lastPath(dir) }

// HasCheckpoint reports whether a run in dir can be resumed.
func HasCheckpoint(dir string) bool {
	_, err := os.Stat(lastPath(dir))
	return err == nil
}

// Leftovers are the names in a run's directory that may be left of a run which
// ended before its first checkpoint; a new run replaces them.
var Leftovers = []string{"checkpoints", lockFile}

// vectors appends a copy of each parameter's part of buf.
func vectors(ts []model.Tensor, prefix string, slab *tensor.Slab, buf device.Buffer) []model.Tensor {
	for i, p := range slab.Params {
		lo, hi := slab.Range(i)
		data := make([]float32, hi-lo)
		slab.Device().Backend().Download(data, buf.Slice(lo, hi))
		ts = append(ts, model.Tensor{Name: prefix + p.Name, Dims: p.Dims(), Data: data})
	}
	return ts
}

// writeCheckpoint replaces the file at path, or leaves it unchanged if writing
// fails. A zero best is left out.
func writeCheckpoint(o *Options, path string, s *state, opt *optim.Optimizer, ema *optim.EMA, best device.Buffer) error {
	slab := opt.Slab()
	ts := vectors(nil, weightsPrefix, slab, slab.Values())
	moments := opt.State()
	s.Updates = moments.Steps
	for _, v := range moments.Vectors {
		ts = append(ts, model.Tensor{Name: momentsPrefix + v.Name, Dims: v.Dims, Data: v.Data})
	}
	if ema != nil {
		vs, n := ema.State()
		s.Averaged = n
		for _, v := range vs {
			ts = append(ts, model.Tensor{Name: v.Name, Dims: v.Dims, Data: v.Data})
		}
	}
	if !best.Zero() {
		ts = vectors(ts, bestPrefix, slab, best)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return o.write(path, ts, map[string]string{
		"format": checkpointFormat,
		"state":  string(text),
		"crc32c": checksum(string(text), ts),
	})
}

// checksum covers the state and every tensor's name and bits, in the order of the file.
func checksum(text string, ts []model.Tensor) string {
	h := crc32.New(castagnoli)
	h.Write([]byte(text))
	buf := make([]byte, 0, 4096)
	for _, t := range ts {
		h.Write([]byte(t.Name))
		for part := range slices.Chunk(t.Data, cap(buf)/4) {
			buf = buf[:0]
			for _, v := range part {
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
			}
			h.Write(buf)
		}
	}
	return fmt.Sprintf("%08x", h.Sum32())
}

// readCheckpoint reads and checks a checkpoint. It changes nothing.
func readCheckpoint(path string, want *state) (*model.File, *state, error) {
	f, err := model.ReadTensors(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, &model.FileError{File: path, Problem: "there is no checkpoint to resume from", Fix: "start the run afresh", Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, nil, err
	}
	bad := func(format string, a ...any) error {
		return &model.FileError{File: path, Problem: fmt.Sprintf(format, a...), Fix: "start the run afresh"}
	}
	if got := f.Meta["format"]; got != checkpointFormat {
		return nil, nil, bad("expected a checkpoint of format %s, got %q", checkpointFormat, got)
	}
	text := f.Meta["state"]
	if got, sum := checksum(text, f.Tensors), f.Meta["crc32c"]; got != sum {
		return nil, nil, bad("damaged: its checksum is %s, %q was written", got, sum)
	}
	s := new(state)
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, nil, bad("its state cannot be read: %v", err)
	}
	made := s.Fingerprint.differs(want.Fingerprint)
	fix := "resume with the settings and data it began with"
	if made == "" {
		name, was, is := difference(s.Settings, want.Settings)
		if name == "accumulate" {
			name, fix = "accumulate x ranks", "resume with "+divisions(s.Settings.Accumulate)
		}
		if name != "" {
			made = fmt.Sprintf("%s %s, this run has %s", name, was, is)
		}
	}
	if made != "" {
		return nil, nil, &model.FileError{File: path, Problem: "the checkpoint was made with " + made, Fix: fix + ", or start the run afresh"}
	}
	const most = 1 << 53 // counts and sums stay far from where they would overflow
	if s.Step < 0 || s.Step > most || s.Epoch < 0 || s.Epoch > most || s.Batch < 0 || s.Batch > want.Settings.Batches || s.Reads < 0 || s.Bad < 0 || s.Skipped < 0 || s.Skipped > s.Step || s.Overflows < 0 || s.Overflows > s.Skipped {
		return nil, nil, bad("its position (step %d, epoch %d, batch %d) is not one of this run", s.Step, s.Epoch, s.Batch)
	}
	for _, sum := range []float64{s.Loss, s.Weight, s.Norm} {
		if math.Abs(sum) > math.MaxFloat64/most {
			return nil, nil, bad("its sums (loss %g, weight %g, gradient norm %g) are not those of an epoch", s.Loss, s.Weight, s.Norm)
		}
	}
	if p := s.Plateau; p != nil && !(p.LR >= 0 && p.LR <= math.MaxFloat32) {
		return nil, nil, bad("its learning rate is %g", p.LR)
	}
	return f, s, nil
}

// difference returns the first setting that differs, or "".
func difference(was, is settings) (name, a, b string) {
	v, w := reflect.ValueOf(was), reflect.ValueOf(is)
	for i := range v.NumField() {
		if a, b := v.Field(i).Interface(), w.Field(i).Interface(); a != b {
			return strings.ToLower(v.Type().Field(i).Name), fmt.Sprint(a), fmt.Sprint(b)
		}
	}
	return "", "", ""
}

// divisions lists the numbers of ranks among which n batches to a step can be divided,
// as "1 rank with accumulate 4, 2 with 2 or 4 with 1".
func divisions(n int) string {
	var list []string
	for ranks := 1; ranks <= n; ranks++ {
		if each := n / ranks; n%ranks == 0 && (ranks == 1 || each&(each-1) == 0) {
			list = append(list, fmt.Sprintf("%d with %d", ranks, each))
		}
	}
	list[0] = fmt.Sprintf("1 rank with accumulate %d", n)
	if last := len(list) - 1; last > 0 {
		return strings.Join(list[:last], ", ") + " or " + list[last]
	}
	return list[0]
}

// restore copies a checkpoint's vectors to their places and reports whether it holds best weights.
func restore(f *model.File, s *state, opt *optim.Optimizer, ema *optim.EMA, best device.Buffer) (hasBest bool, err error) {
	slab := opt.Slab()
	wrong := func(err error) error {
		return &model.FileError{File: f.Path, Problem: "the checkpoint belongs to another model: " + err.Error(), Fix: "resume with the settings it began with, or start the run afresh"}
	}
	moments := &optim.State{Rule: opt.Rule(), Steps: s.Updates}
	var average []optim.Vector
	for _, t := range f.Tensors {
		if name, ok := strings.CutPrefix(t.Name, momentsPrefix); ok {
			moments.Vectors = append(moments.Vectors, optim.Vector{Name: name, Dims: t.Dims, Data: t.Data})
		}
		if strings.HasPrefix(t.Name, averagePrefix) {
			average = append(average, optim.Vector{Name: t.Name, Dims: t.Dims, Data: t.Data})
		}
	}
	if err := upload(f, weightsPrefix, slab, slab.MutableValues()); err != nil {
		return false, wrong(err)
	}
	if err := opt.LoadState(moments); err != nil {
		return false, wrong(err)
	}
	if ema != nil {
		if err := ema.LoadState(average, s.Averaged); err != nil {
			return false, wrong(err)
		}
	}
	if s.Best == nil {
		return false, nil
	}
	if err := upload(f, bestPrefix, slab, best); err != nil {
		return false, wrong(err)
	}
	return true, nil
}

// upload fills buf with the tensors under prefix, if all are there with the parameters' shapes and no others.
func upload(f *model.File, prefix string, slab *tensor.Slab, buf device.Buffer) error {
	n := 0
	for _, t := range f.Tensors {
		if strings.HasPrefix(t.Name, prefix) {
			n++
		}
	}
	for _, p := range slab.Params {
		t := f.Lookup(prefix + p.Name)
		if t == nil {
			return fmt.Errorf("it has no parameter %s", p.Name)
		}
		if !slices.Equal(t.Dims, p.Dims()) || len(t.Data) != p.Len() {
			return fmt.Errorf("its parameter %s has shape %v, expected %v", p.Name, t.Dims, p.Dims())
		}
	}
	if n != len(slab.Params) {
		return fmt.Errorf("it has %d parameters, expected %d", n, len(slab.Params))
	}
	for i, p := range slab.Params {
		lo, hi := slab.Range(i)
		slab.Device().Backend().Upload(buf.Slice(lo, hi), f.Lookup(prefix+p.Name).Data)
	}
	return nil
}

// writeBest writes the best weights alone, under the parameters' own names.
func writeBest(o *Options, slab *tensor.Slab, best device.Buffer, r *Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return o.write(bestPath(o.Dir), vectors(nil, "", slab, best), map[string]string{"record": string(text)})
}

// removeOld removes what an older run left that this one may not replace.
func removeOld(dir string) error {
	if err := os.Remove(bestPath(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(tensorBoardDir(dir))
}
