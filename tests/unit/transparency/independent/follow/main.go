// Follows a log by its static files alone, with golang.org/x/mod/sumdb: opens the checkpoint, lets the library verify
// every tile that it reads against it, and proves each entry. Takes the log's URL, its key and a credential; prints
// the leaf hashes.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type site struct {
	prefix, credential string
	known              map[tlog.Tile][]byte
}

func (from site) get(path string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, from.prefix+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+from.credential)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(path + ": " + answer.Status)
	}
	return body, err
}

func (site) Height() int { return 8 }

// SaveTiles is told of tiles that were verified.
func (from site) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, tile := range tiles {
		from.known[tile] = data[i]
	}
}

// ReadTiles asks for tiles by their names in c2sp.org/tlog-tiles, which leave out the height.
func (from site) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for i, tile := range tiles {
		if found[i] = from.known[tile]; found[i] != nil {
			continue
		}
		data, err := from.get("tile/" + strings.TrimPrefix(tile.Path(), "tile/8/"))
		if err != nil {
			return nil, err
		}
		found[i] = data
	}
	return found, nil
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	from := site{os.Args[1], os.Args[3], map[tlog.Tile][]byte{}}
	verifier := must(note.NewVerifier(os.Args[2]))
	opened := must(note.Open(must(from.get("checkpoint")), note.VerifierList(verifier)))
	lines := strings.Split(opened.Text, "\n")
	tree := tlog.Tree{N: must(strconv.ParseInt(lines[1], 10, 64)), Hash: must(tlog.ParseHash(lines[2]))}
	reader := tlog.TileHashReader(tree, from)
	for index := int64(0); index < tree.N; index++ {
		leaf := must(reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)}))[0]
		proof := must(tlog.ProveRecord(tree.N, index, reader))
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%x\n", leaf[:])
	}
}
