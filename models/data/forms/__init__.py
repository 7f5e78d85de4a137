"""The forms of data sets that freshet reads, one module a family; FORMS in each module lists its forms."""
