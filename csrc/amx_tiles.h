// The tiles of AMX as its files use them: 8 of 16 rows of 64 bytes.
#pragma once

#include <stdint.h>

namespace fastrec {
namespace FASTREC_LEVEL {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

}  // namespace FASTREC_LEVEL
}  // namespace fastrec
