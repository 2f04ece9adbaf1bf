// Calls function<U>(...) for U = tile.n_users, the largest where it is none of the smaller ones.
#pragma once

#define FASTREC_CASE(u, function, ...) \
  case u:                              \
    return function<u>(__VA_ARGS__)
#define FASTREC_CASES_5(function, ...)    \
  FASTREC_CASE(1, function, __VA_ARGS__); \
  FASTREC_CASE(2, function, __VA_ARGS__); \
  FASTREC_CASE(3, function, __VA_ARGS__); \
  FASTREC_CASE(4, function, __VA_ARGS__); \
  FASTREC_CASE(5, function, __VA_ARGS__)
#define FASTREC_CASES_7(function, ...)    \
  FASTREC_CASES_5(function, __VA_ARGS__); \
  FASTREC_CASE(6, function, __VA_ARGS__); \
  FASTREC_CASE(7, function, __VA_ARGS__)

#define FASTREC_SWITCH_6(function, ...)        \
  switch (tile.n_users) {                      \
    FASTREC_CASES_5(function, __VA_ARGS__);    \
    default:                                   \
      return function<6>(__VA_ARGS__);         \
  }
#define FASTREC_SWITCH_8(function, ...)        \
  switch (tile.n_users) {                      \
    FASTREC_CASES_7(function, __VA_ARGS__);    \
    default:                                   \
      return function<8>(__VA_ARGS__);         \
  }
#define FASTREC_SWITCH_14(function, ...)       \
  switch (tile.n_users) {                      \
    FASTREC_CASES_7(function, __VA_ARGS__);    \
    FASTREC_CASE(8, function, __VA_ARGS__);    \
    FASTREC_CASE(9, function, __VA_ARGS__);    \
    FASTREC_CASE(10, function, __VA_ARGS__);   \
    FASTREC_CASE(11, function, __VA_ARGS__);   \
    FASTREC_CASE(12, function, __VA_ARGS__);   \
    FASTREC_CASE(13, function, __VA_ARGS__);   \
    default:                                   \
      return function<14>(__VA_ARGS__);        \
  }
