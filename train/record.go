package train

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// Record is one epoch of a run. Its JSON is one flat object,
//
//	{"epoch":1,"step":40,"lr":0.001,"train_loss":0.51,"grad_norm":1.2,"clipped":0.05,"scale":65536,"skipped":1,"val_mae":0.43,"seconds":2.5}
//
// with scale and skipped only in fp16, and null for a number that is not finite.
type Record struct {
	Epoch     int                `json:"epoch"`             // counted from 1
	Step      int                `json:"step"`              // optimizer steps done so far, skipped ones included
	LR        float32            `json:"lr"`                // learning rate, of the epoch's last step
	TrainLoss float64            `json:"train_loss"`        // mean over the epoch's items, while the weights moved; without skipped steps; on a GPU of every 16th step and the last
	GradNorm  float64            `json:"grad_norm"`         // norm of the gradient, mean over the same steps, before clipping
	Clipped   float64            `json:"clipped"`           // share of the steps whose gradient norm was above the limit that it was clipped to
	Scale     float32            `json:"scale,omitempty"`   // that the loss is multiplied by, after the epoch; only in fp16
	Skipped   int                `json:"skipped,omitempty"` // steps so far whose gradient overflowed, which changed no weight; only in fp16
	Val       map[string]float64 `json:"val_*"`             // measures of the validation, by name; none where it did not run
	Seconds   float64            `json:"seconds"`           // wall time since the run began, earlier parts of a resumed run included
}

// MarshalJSON writes the flat object. It returns no error.
func (r Record) MarshalJSON() ([]byte, error) {
	b := fmt.Appendf(nil, `{"epoch":%d,"step":%d`, r.Epoch, r.Step)
	b = number(b, "lr", float64(r.LR), 32)
	b = number(b, "train_loss", r.TrainLoss, 64)
	b = number(b, "grad_norm", r.GradNorm, 64)
	b = number(b, "clipped", r.Clipped, 64)
	if r.Scale != 0 {
		b = number(b, "scale", float64(r.Scale), 32)
		b = fmt.Appendf(b, `,"skipped":%d`, r.Skipped)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Val)) {
		b = number(b, "val_"+k, r.Val[k], 64)
	}
	b = number(b, "seconds", r.Seconds, 64)
	return append(b, '}'), nil
}

func number(b []byte, key string, v float64, bits int) []byte {
	name, _ := json.Marshal(key) // a string always has a JSON form
	b = append(append(append(b, ','), name...), ':')
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, bits)
}

// UnmarshalJSON reads what MarshalJSON wrote, null as NaN. Other keys
// are ignored. It returns encoding/json's error if b is not an object of
// numbers and nulls.
func (r *Record) UnmarshalJSON(b []byte) error {
	var m map[string]*float64
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*r = Record{}
	for k, p := range m {
		v := math.NaN()
		if p != nil {
			v = *p
		}
		name, isVal := strings.CutPrefix(k, "val_")
		switch {
		case isVal:
			if r.Val == nil {
				r.Val = map[string]float64{}
			}
			r.Val[name] = v
		case k == "epoch":
			r.Epoch = int(v)
		case k == "step":
			r.Step = int(v)
		case k == "lr":
			r.LR = float32(v)
		case k == "train_loss":
			r.TrainLoss = v
		case k == "grad_norm":
			r.GradNorm = v
		case k == "clipped":
			r.Clipped = v
		case k == "scale":
			r.Scale = float32(v)
		case k == "skipped":
			r.Skipped = int(v)
		case k == "seconds":
			r.Seconds = v
		}
	}
	return nil
}

// ReadHistory reads the metrics.jsonl of a run's directory. An incomplete last
// line, which a killed run may leave, is dropped. Any other line that is not a
// record is a [*model.FileError]; a file that cannot be read gives
// os.ReadFile's error.
func ReadHistory(dir string) ([]Record, error) {
	path := filepath.Join(dir, metricsFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var history []Record
	for n := 1; len(b) > 0; n++ {
		line, rest, whole := strings.Cut(string(b), "\n")
		if !whole {
			break
		}
		b = []byte(rest)
		var r Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, &model.FileError{File: path, Problem: fmt.Sprintf("line %d: expected one epoch as a JSON object: %v", n, err), Err: err}
		}
		history = append(history, r)
	}
	return history, nil
}

const metricsFile = "metrics.jsonl"

// openMetrics makes metrics.jsonl hold exactly the records of history and
// returns it open for appending.
func openMetrics(dir string, history []Record) (*os.File, error) {
	path := filepath.Join(dir, metricsFile)
	err := model.WriteFileAtomic(path, func(w io.Writer) error {
		for _, r := range history {
			if err := writeRecord(w, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o666)
}

// writeRecord writes a line with a single Write, so that no reader sees part of
// it.
func writeRecord(w io.Writer, r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
