package keras

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// Weights are the converted layers of a Keras file.
type Weights struct {
	File  *model.File // tensors under PyTorch's names, "layer.weight_ih_l0"
	Arch  *model.Architecture
	Notes []string // one sentence each: what a layer does beyond its weights, and what was assumed

	After map[string]model.After // what follows a layer, by its name, as far as the configuration says

	path   string
	layers []*layer // by Arch.Layers
	keras2 bool     // the file is one of Keras 2
}

// Options supplies what a file of weights alone does not determine; nil uses Keras's
// defaults.
type Options struct {
	// Kinds gives the kinds of layers, by name, where names and shapes do not
	// determine them; [model.Other] keeps a layer's arrays unchanged.
	Kinds map[string]model.Kind
}

// Limits on the members of a .keras archive that are read whole.
const (
	maxConfig  = 16 << 20
	maxInflate = 16 // times the archive's size, for compressed weights
)

// Read reads a .keras or a .weights.h5 file of Keras 3, or an .h5 file of a whole
// model or of weights by Keras 2 (Keras 3 too writes whole models so). Layers keep their names
// in the model: LSTM, GRU, SimpleRNN and their cells, CuDNNLSTM, CuDNNGRU, Bidirectional, Dense,
// Embedding and LayerNormalization, in nested models too. Arrays of other
// layers are kept under their paths in the file, unchecked. An optimizer's are
// left out.
//
// It returns a [*model.FileError] for a file that cannot be read, is damaged or
// of an unsupported form, for a hint that does not apply, and for a layer of
// the wrong shape; the latter names the array, the expected and the actual
// shape.
func Read(path string, o *Options) (*Weights, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &model.FileError{File: path, Problem: "cannot be read: " + strings.TrimPrefix(err.Error(), "open "+path+": "), Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return nil, &model.FileError{File: path, Problem: "expected a file of weights", Err: err}
	}
	return decode(path, f, info.Size(), o)
}

func decode(path string, r io.ReaderAt, size int64, o *Options) (*Weights, error) {
	if o == nil {
		o = &Options{}
	}
	wrong := func(err error) error {
		if fe, ok := err.(*model.FileError); ok {
			fe.File = path
			return fe
		}
		return &model.FileError{File: path, Problem: err.Error(), Err: err}
	}
	var config *object
	head := make([]byte, 4)
	if n, _ := r.ReadAt(head, 0); string(head[:n]) == "PK\x03\x04" {
		var err error
		if r, size, config, err = unpack(r, size); err != nil {
			return nil, wrong(err)
		}
	}
	h, err := openHDF5(r, size)
	if err != nil {
		return nil, wrong(err)
	}
	c := &converter{hints: o.Kinds, used: map[string]bool{}, w: &Weights{path: path, Arch: &model.Architecture{}}}
	if err := c.convert(h, config); err != nil {
		return nil, wrong(err)
	}
	if c.w.File, err = model.NewFile(path, c.tensors, nil); err != nil {
		return nil, wrong(err)
	}
	return c.w, nil
}

// object is a serialised Keras object.
type object struct {
	Module string          `json:"module"`
	Class  string          `json:"class_name"`
	Config json.RawMessage `json:"config"`
	Build  json.RawMessage `json:"build_config"`
	// Inbound is where the layer's inputs come from, in a Functional model.
	Inbound json.RawMessage `json:"inbound_nodes"`
}

// rank is that of the input for which a layer was built; 0: unknown.
func (o *object) rank() int {
	var b struct {
		InputShape []any `json:"input_shape"`
	}
	if json.Unmarshal(o.Build, &b) != nil {
		return 0
	}
	return len(b.InputShape)
}

// settings are the fields of a configuration that are used here.
type settings struct {
	Name     string   `json:"name"`
	Layers   []object `json:"layers"`         // of a Sequential or Functional model
	Layer    *object  `json:"layer"`          // of Bidirectional, TimeDistributed
	Backward *object  `json:"backward_layer"` // of Bidirectional
	Merge    *string  `json:"merge_mode"`
	Cell     *object  `json:"cell"`  // of RNN
	Cells    []object `json:"cells"` // of StackedRNNCells

	Activation          any      `json:"activation"`
	RecurrentActivation any      `json:"recurrent_activation"`
	ResetAfter          *bool    `json:"reset_after"`
	GoBackwards         bool     `json:"go_backwards"`
	Epsilon             *float64 `json:"epsilon"`
	RMS                 bool     `json:"rms_scaling"`
	Center              *bool    `json:"center"`
	Scale               *bool    `json:"scale"`
	Axis                any      `json:"axis"`
	MaskZero            bool     `json:"mask_zero"`
	Trainable           *bool    `json:"trainable"`

	Sequences       bool  `json:"return_sequences"`
	BatchShape      []any `json:"batch_shape"` // of an InputLayer
	BatchInputShape []any `json:"batch_input_shape"`
}

// settings is nil for a class defined by the user, whose fields may mean
// anything.
func (o *object) settings() *settings {
	if o.Module != "" && o.Module != "keras" && !strings.HasPrefix(o.Module, "keras.") {
		return nil
	}
	s := &settings{}
	if json.Unmarshal(o.Config, s) == nil || o.Class == "Sequential" && json.Unmarshal(o.Config, &s.Layers) == nil { // before Keras 2.2.3 a list alone
		return s
	}
	return nil
}

// unpack opens the weights in a .keras archive and reads its configuration.
func unpack(r io.ReaderAt, size int64) (io.ReaderAt, int64, *object, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("truncated or damaged: %w", err)
	}
	members := map[string]*zip.File{}
	for _, f := range z.File {
		members[f.Name] = f
	}
	config, weights := members["config.json"], members["model.weights.h5"]
	switch {
	case config == nil:
		return nil, 0, nil, fmt.Errorf("expected a .keras file, got an archive without config.json")
	case weights == nil:
		return nil, 0, nil, fmt.Errorf("expected a .keras file with model.weights.h5, got none; weights in shards or as .npz are not read: save the model in one file")
	}
	text, err := inflate(config, maxConfig)
	if err != nil {
		return nil, 0, nil, err
	}
	whole := &object{}
	if err := json.Unmarshal(text, whole); err != nil {
		return nil, 0, nil, fmt.Errorf("config.json: %w", err)
	}
	if weights.Method == zip.Store {
		at, err := weights.DataOffset()
		n := int64(weights.CompressedSize64)
		if err != nil || n < 0 || at > size || n > size-at {
			return nil, 0, nil, fmt.Errorf("truncated or damaged: model.weights.h5 of %d bytes, in a file of %d", weights.CompressedSize64, size)
		}
		if err := verify(weights); err != nil {
			return nil, 0, nil, err
		}
		return io.NewSectionReader(r, at, n), n, whole, nil
	}
	text, err = inflate(weights, maxInflate*size)
	return bytes.NewReader(text), int64(len(text)), whole, err
}

// verify reads a member to its end, where its checksum is compared.
func verify(f *zip.File) error {
	r, err := f.Open()
	if err == nil {
		defer r.Close()
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		return fmt.Errorf("truncated or damaged: %s: %w; get the file again", f.Name, err)
	}
	return nil
}

// inflate reads a member of at most most bytes.
func inflate(f *zip.File, most int64) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("truncated or damaged: %s: %w", f.Name, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("truncated or damaged: %s: %w", f.Name, err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s is more than %d bytes, out of proportion to the file; save it without compression", f.Name, most)
	}
	return text, nil
}
