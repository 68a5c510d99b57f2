package speech

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
)

// The contents of a cached file, little-endian: "CRSF", the version of the format
// (1), the features per frame and the number of frames as uint32, the features as
// float32, and the CRC-32 (IEEE) of everything before it.
const (
	cacheMagic   = "CRSF"
	cacheVersion = 1
	cacheHeader  = 4 + 3*4
)

// checkCache returns a *data.InputError if dir, the directory of a cache, is a
// file or below one. It need not exist.
func checkCache(dir string) error {
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			return &data.InputError{File: at, Problem: "want a directory for the cached features, got a file", Fix: "name a directory, which need not exist"}
		}
		if err == nil || at == filepath.Dir(at) {
			return nil
		}
	}
}

// cachePath returns the path of the cached features of a file. The name depends
// on the file's path, size and time and on what is computed. A file that does not
// exist is a *data.InputError.
func cachePath(dir, path string, spec any) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", unreadable(path, err)
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%d\n%+v", full, info.Size(), info.ModTime().UnixNano(), spec))
	return filepath.Join(dir, hex.EncodeToString(sum[:12])+".features"), nil
}

// readCache reads what writeCache wrote. It returns false if the file does not
// exist or is damaged; it is then written again.
func readCache(path string, width int) ([]float32, bool) {
	b, err := os.ReadFile(path)
	if err != nil || len(b) < cacheHeader+4 || !bytes.HasPrefix(b, []byte(cacheMagic)) {
		return nil, false
	}
	le := binary.LittleEndian
	body := b[:len(b)-4]
	if le.Uint32(b[len(b)-4:]) != crc32.ChecksumIEEE(body) || le.Uint32(b[4:]) != cacheVersion ||
		int64(le.Uint32(b[8:])) != int64(width) || int64(le.Uint32(b[12:]))*int64(width)*4 != int64(len(body)-cacheHeader) {
		return nil, false
	}
	frames := make([]float32, (len(body)-cacheHeader)/4)
	for i := range frames {
		frames[i] = math.Float32frombits(le.Uint32(body[cacheHeader+4*i:]))
	}
	return frames, true
}

func writeCache(path string, frames []float32, width int) error {
	le := binary.LittleEndian
	b := append(make([]byte, 0, cacheHeader+4*len(frames)+4), cacheMagic...)
	for _, n := range []int{cacheVersion, width, len(frames) / width} {
		b = le.AppendUint32(b, uint32(n))
	}
	for _, v := range frames {
		b = le.AppendUint32(b, math.Float32bits(v))
	}
	b = le.AppendUint32(b, crc32.ChecksumIEEE(b))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return model.WriteFileAtomic(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
