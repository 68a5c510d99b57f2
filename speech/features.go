package speech

import (
	"fmt"
	"sync"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
)

// mostInMemory is the largest number of float32 features that are kept in memory;
// those of further files are read or computed each time.
const mostInMemory = 400 << 20

// features keeps the features of files in memory; nil keeps nothing.
type features struct {
	dir string // the cache directory; "": none

	mu    sync.Mutex
	kept  map[featuresKey][]float32
	total int               // numbers kept
	sums  map[string]uint64 // hashes of files, by path
}

type featuresKey struct {
	path  string
	width int
	spec  audio.Spec // of sound files
}

// of reads or computes the features of a file [frames,width]. The slice must not
// be changed.
func (k *features) of(c *Setup, path string, width int) ([]float32, error) {
	if k == nil {
		return loadFeatures(c, path, width, "")
	}
	key := featuresKey{path: path, width: width}
	if !IsFeatures(path) {
		key.spec = c.Spec()
	}
	k.mu.Lock()
	frames := k.kept[key]
	k.mu.Unlock()
	if frames != nil {
		return frames, nil
	}
	frames, err := loadFeatures(c, path, width, k.dir)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.kept[key]; !there && k.total+len(frames) <= mostInMemory {
		if k.kept == nil {
			k.kept = map[featuresKey][]float32{}
		}
		k.kept[key] = frames
		k.total += len(frames)
	}
	return frames, nil
}

// loadFeatures reads or computes the features of a file. Those of sound are kept
// in dir, if it is not "".
func loadFeatures(c *Setup, path string, width int, dir string) ([]float32, error) {
	if IsFeatures(path) {
		frames, _, err := readFeatures(path, width)
		return frames, err
	}
	spec := c.Spec()
	const fix = "give .npy or .mfc files as in its training"
	if c.Rate == 0 {
		return nil, &data.InputError{File: path, Problem: "is a sound file; the model needs feature files", Fix: fix}
	}
	if got := spec.Width(); got != width {
		return nil, &data.InputError{File: path, Problem: fmt.Sprintf("is a sound file, which gives %d features per frame; the model needs %d", got, width), Fix: fix}
	}
	at := ""
	if dir != "" {
		var err error
		if at, err = cachePath(dir, path, spec); err != nil {
			return nil, err
		}
		if frames, ok := readCache(at, width); ok {
			return frames, nil
		}
	}
	sound, err := audio.Read(path)
	if err != nil {
		return nil, err
	}
	frames := audio.Extract(sound, spec)
	if at != "" {
		if err := writeCache(at, frames, width); err != nil {
			return nil, err
		}
	}
	return frames, nil
}
