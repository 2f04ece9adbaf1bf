// score_topk over cells: what spares many users most of a catalogue whose items lie in clusters.
//
// The items of a cell lie around a middle c, none farther from it than r. For every item v of the cell
//     <q, v> + bias  =  <q, c> + <q, v - c> + bias  <=  <q, c> + |q| r + the largest bias of the cell,
// which is the score of the item (c, r) for the query (q, |q|): a search of its own over a small catalogue, with bounds as
// topk_bounds.h has them. A user begins with the cells of the largest bounds. The scores there cut off most of the others,
// and what is left of all users is walked cell by cell, so that each is read once. Cells whose bounds say little, as those
// of items without clusters, are found out before that, and the whole catalogue is walked instead.
//
// After Teflioudi, Gemulla and Mykytiuk, LEMP, SIGMOD 2015 (exact, by buckets with bounds), and the cells of Jegou, Douze
// and Schmid 2011.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "ops.h"

namespace fastrec {

constexpr int64_t kCellUsers = 128;  // most users of a call

// Calls write(u, keys), the best first, for all users [first, last); false, and nothing is written, where the cells say
// too little. There is neither a history nor a list of what is allowed.
bool search_cells(const TopkArgs& args, ScreenKind kind, const Kernel& level, Stop& stop, int threads, int64_t first,
                  int64_t last, const std::function<void(int64_t, const std::vector<uint64_t>&)>& write);

}  // namespace fastrec
