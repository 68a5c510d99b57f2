package speech

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/task"
)

// mostSummed is the number of samples from the beginning of a sound by which it is
// recognised: four seconds at 16 kHz. Decoding the whole would take as long as
// training's first pass over the sounds, also where their features are cached.
const mostSummed = 1 << 16

// readSums computes the hashes of the files of utterances, of those that can be read.
func (d *Data) readSums(ctx context.Context, list []Utterance) error {
	sums := make([]uint64, len(list))
	par.For(len(list), 1, d, func(d *Data, a, b int) {
		for i := a; i < b && ctx.Err() == nil; i++ {
			sums[i] = d.features.fileSum(list[i].Audio)
		}
	})
	return ctx.Err()
}

// sumOf returns the hash of an utterance: of its sound and its text. Where the file is,
// and in which format the sound is written, does not change it.
func (k *features) sumOf(u Utterance) uint64 {
	return task.Sum(fmt.Sprintf("%x", k.fileSum(u.Audio)), u.Text)
}

// fileSum returns the hash of a file, which is kept. For a file that cannot be read it
// is one that no other has, so that the error comes where the utterance is used.
func (k *features) fileSum(path string) uint64 {
	if k == nil {
		k = &features{}
	}
	k.mu.Lock()
	sum, known := k.sums[path]
	k.mu.Unlock()
	if known {
		return sum
	}
	sum, err := sumFile(path)
	if err != nil {
		sum = task.Sum(path, err.Error())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sums == nil {
		k.sums = map[string]uint64{}
	}
	k.sums[path] = sum
	return sum
}

// sumFile returns the hash of the beginning of a sound, or of a file of features.
func sumFile(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	h := fnv.New64a()
	if IsFeatures(path) {
		_, err := io.Copy(h, bufio.NewReader(f))
		return h.Sum64(), err
	}
	r, err := audio.NewReader(f, path)
	if err != nil {
		return 0, err
	}
	samples := make([]float32, mostSummed)
	n := 0
	for n < len(samples) && err == nil {
		var got int
		got, err = r.Read(samples[n:])
		n += got
	}
	if err != nil && err != io.EOF {
		return 0, err
	}
	fmt.Fprint(h, r.Rate)
	h.Write(bytesOf(samples[:n]))
	return h.Sum64(), nil
}

// sumNumbers returns the hash of numbers.
func sumNumbers(x []float32) uint64 {
	h := fnv.New64a()
	h.Write(bytesOf(x))
	return h.Sum64()
}

func bytesOf(x []float32) []byte {
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}
