//go:build dl && linux

package cuda

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// choices is the fastest algorithms that were found, kept in a file for later processes.
type choices struct {
	path string // "": not kept
	all  map[string]int32
}

// cached returns the path of a file in the user's cache; "" if there is none.
func cached(name string) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "carousel", "cuda", name)
}

// get returns the algorithm that was chosen for a key, any number if the file is not as it was written.
func (c *choices) get(key string) (int32, bool) {
	if c.all == nil {
		c.all = c.read()
	}
	algo, ok := c.all[key]
	return algo, ok
}

// read returns what the file has; a file that cannot be read has nothing.
func (c *choices) read() map[string]int32 {
	all := map[string]int32{}
	if text, err := os.ReadFile(c.path); err == nil && json.Unmarshal(text, &all) != nil {
		clear(all)
	}
	return all
}

// put keeps a choice, with those that other processes have made meanwhile. What cannot be
// written is found out again by the next process.
func (c *choices) put(key string, algo int32) {
	all := c.read()
	all[key] = algo
	c.all[key] = algo
	if c.path == "" || os.MkdirAll(filepath.Dir(c.path), 0o700) != nil {
		return
	}
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(c.path), "new-*")
	if err != nil {
		return
	}
	_, err = f.Write(append(text, '\n'))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), c.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}
