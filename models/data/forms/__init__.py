"""Define the forms of data sets that freshet reads, one module per family. FORMS in each module lists its forms."""
